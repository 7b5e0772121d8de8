"""Faults of the federated parts: the local stack's nets, a part of which is killed at each stage of a run."""
