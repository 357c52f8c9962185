"""Datasets, their splits, and pictures on their way to a backbone."""
