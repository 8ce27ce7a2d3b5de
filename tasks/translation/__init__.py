"""Sentences from English into another language, and back."""
