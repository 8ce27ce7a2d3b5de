"""A text made short."""
