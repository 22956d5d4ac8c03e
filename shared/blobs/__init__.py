"""Bytes under keys: uploads, results. A key begins with the id it belongs to (`shared.jobs.job.blob_key`)."""
