"""Upkeep repairs what others left: bells that were lost, leases that lapsed, files that no row names."""
