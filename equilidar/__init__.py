"""equilidar: label-free pretraining of LiDAR 3D detectors by equivariance."""

__version__ = "0.1.0"
