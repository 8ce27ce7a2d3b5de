"""Chain of thought: questions whose answers come with a rationale (FLAN 2022)."""
