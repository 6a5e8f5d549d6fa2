"""Experiments: the config, the plan of cells, the run and its folder."""
