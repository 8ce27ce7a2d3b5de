"""What is asked of a text generator, and a client of HTTP endpoints."""
