"""Boxes in, the official figures out. Runs on a CPU alone; sees structures and ops only."""
