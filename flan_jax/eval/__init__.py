"""Evaluation: rank classification, generation, metrics, reports."""
