"""Misc.: datasets that the paper puts in no other cluster (TREC)."""
