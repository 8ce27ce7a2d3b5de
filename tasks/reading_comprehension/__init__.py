"""Reading comprehension: a passage is given, and the answer lies in it."""
