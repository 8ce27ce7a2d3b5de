"""Checkpoints of other programs, read and written.

Everything is read through one protocol (`source.py`) under the names and
layouts of our own unscanned parameter trees, one tensor at a time.
"""
