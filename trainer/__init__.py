"""Networks, how they run, how they learn and how good they are. Imports nothing of ours but `shared`."""
