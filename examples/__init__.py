"""Pruning in loops of your own; tests run these files."""
