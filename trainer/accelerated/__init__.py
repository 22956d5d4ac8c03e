"""Training with everything on the device, Keras on JAX: `python -m trainer.accelerated`. Needs the extra `accelerated`."""
