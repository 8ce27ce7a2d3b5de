"""Structured records put into words."""
