"""Group actions on sweeps: drawing them apart from applying them, batched, on the training device."""
