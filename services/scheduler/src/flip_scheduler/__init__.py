"""Runs, the queue, leases and the catalogue of nets."""
