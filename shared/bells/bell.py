"""What a bell says. The only message between the API and the workers; tests/contracts/test_bells.py fixes its form."""

TASK = "lacuna.bell"  # the Celery task's name; its queue is the lane, its only argument the id of the job that rang
