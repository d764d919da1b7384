"""Conversion of checkpoints of the reference implementation."""

from .weights import convert_reference_checkpoint, load_reference_checkpoint

__all__ = ["convert_reference_checkpoint", "load_reference_checkpoint"]
