"""The workers: claim, restore, commit; and upkeep, which repairs what others left. Imports `shared` and `trainer`."""
