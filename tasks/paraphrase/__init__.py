"""Whether, or how nearly, two texts mean the same."""
