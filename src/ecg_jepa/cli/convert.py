"""`ecg-jepa convert`: a checkpoint of the reference implementation -> a directory of ours."""

from ..conversion.__main__ import run

__all__ = ["run"]
