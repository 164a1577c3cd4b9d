"""Geometry and sparse-convolution ops: one file per op, plain tensors in, plain tensors out.

Each file holds four parts: the schema, the readable PyTorch reference (the specification, on any device), the
shape rule (fake) and the gradient. A compiled kernel registered for a device outranks the reference in the
dispatcher; nothing here asks which one runs. Loading those kernels, if they are installed, is the one thing that
happens on import.
"""

from equilidar.ops import _extension

_extension.load()
