"""Models: what an artifact says of itself, and which are there."""
