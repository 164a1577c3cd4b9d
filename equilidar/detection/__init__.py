"""Detectors: neck, anchors, head, targets, losses, decoding. Pure parts, no Lightning."""
