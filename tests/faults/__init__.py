"""Promises under fire: the real programs, every fault that we know of, and one checker after each."""
