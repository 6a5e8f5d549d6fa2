"""Methods of experiments, one file each: from a `Problem` to a sparse network."""
