"""Lightning wiring: entry points, run directories, checkpoints, and the training modules."""
