"""What the HTML pages share: a style sheet and how texts become HTML."""
