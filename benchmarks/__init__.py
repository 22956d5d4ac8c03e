"""Figures, printed and written as JSON. Never tests: nothing fails because a machine is slow."""
