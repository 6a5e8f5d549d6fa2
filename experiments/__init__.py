"""Experiments of several runs: sweeps, ablations, transfer, and their tables and figures."""
