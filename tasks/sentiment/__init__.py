"""Sentiment: does the writer think well or badly of something."""
