"""Making and choosing instruction data."""
