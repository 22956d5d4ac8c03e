"""Pictures to train on and to measure with, as they are kept."""
