"""Sizes of a training step on machines that are not here."""
