"""Faults of the federated parts on the local stack: parts are killed, cut off, filled up, or answer wrongly."""
