"""Bells: hints that a lane has something to do. Losing, doubling or forging one changes nothing but time."""
