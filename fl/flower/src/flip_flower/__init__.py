"""Federated nnU-Net on Flower: nets, runs and the hub-side driver."""
