"""Questions answered from memory, without a text."""
