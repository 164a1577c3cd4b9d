"""Detectors from raw points to boxes, stage by stage, beside what OpenPCDet's way costs on a CPU."""
