"""Training: networks, passes, stages, optimizers, the runner, evaluation and checkpoints."""
