"""Federated training of researchers' own apps, for any framework."""
