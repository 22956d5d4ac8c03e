"""The `lacuna` command, a module for each group of commands.

What takes long to import (httpx, rich) is imported by the commands that need it.
"""

from client.cli import batches, datasets, evaluate, folder, jobs, models, restore, train
from client.cli.program import main

__all__ = ["batches", "datasets", "evaluate", "folder", "jobs", "main", "models", "restore", "train"]
