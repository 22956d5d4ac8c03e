"""Batches: many pictures under one name, with one set of counts."""
