"""Whose request it is."""


def owner_id() -> str:
    """`local`: without keys, everybody who reaches the loopback address is the same owner."""
    return "local"
