"""Federated nnU-Net that knows no framework: numpy arrays and JSON in and out."""
