"""What the whole of it achieves, on real pictures."""
