"""Checkpoints of the reference implementation -> ours."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .weights import convert_reference_checkpoint, load_reference_checkpoint

__all__ = ["convert_reference_checkpoint", "load_reference_checkpoint"]


def __getattr__(name: str) -> Any:
    """Imported when they are asked for: the settings of the command need no models."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import weights

    return getattr(weights, name)
