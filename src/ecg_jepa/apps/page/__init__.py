"""A page on which one ECG is looked at with a classifier. The command is `ecg-jepa demo`; a Space on the Hub shows the same."""

from .server import serve

__all__ = ["serve"]
