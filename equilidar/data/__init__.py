"""Readers of recordings, the simulator, and how samples reach the training loop."""
