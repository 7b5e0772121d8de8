"""Segmentation of a small structure, by Flower."""
