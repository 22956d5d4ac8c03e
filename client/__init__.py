"""The `lacuna` command: a client of the HTTP API. Imports nothing of ours."""
