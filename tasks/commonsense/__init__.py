"""Commonsense: which of several continuations or plans is sensible."""
