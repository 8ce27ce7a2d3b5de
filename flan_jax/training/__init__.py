"""The training step and everything around it: loss, optimiser, checkpoints."""
