"""How convolutions and pooling are computed on CPUs, where XLA is slow."""
