"""Everything worth knowing about an accelerator, in one command that may be cut off; see `__main__`."""
