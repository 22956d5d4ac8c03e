"""Jobs: what they may become (job.py), one statement a move (store.py), whose turn it is (turns.py)."""
