"""Instruction tuning as one reproducible JAX code base."""

__version__ = "0.1.0"
