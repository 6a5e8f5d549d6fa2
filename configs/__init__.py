"""Configurations: `default.py` says what every key means, the others are their few differences from it."""
