"""Federated nnU-Net on NVIDIA FLARE: nets, jobs and the hub-side driver."""
