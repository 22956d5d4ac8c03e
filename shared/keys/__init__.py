"""Keys: who may use this Lacuna from beyond its own machine, and whose jobs are whose."""
