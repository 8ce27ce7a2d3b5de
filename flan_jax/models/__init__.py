"""Models as pure functions over linen modules, with T5X's parameter names."""
