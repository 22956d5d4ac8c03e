"""The HTTP API. Imports only `shared`; brings no decoder, no NumPy, no Celery and no Keras along."""
