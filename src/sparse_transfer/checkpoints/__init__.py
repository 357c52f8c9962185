"""Checkpoint files: ours, and everybody else's brought in safely."""
