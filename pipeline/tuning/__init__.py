"""Searching for better settings with Optuna, in trials of equal work."""
