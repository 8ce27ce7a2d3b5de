"""Scores, metrics, protocols and the page about a run."""
