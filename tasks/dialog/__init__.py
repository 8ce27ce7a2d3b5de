"""Dialog: what is said next in a conversation about a text (FLAN 2022)."""
