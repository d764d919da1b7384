"""Docstrings name other objects as transformers' do, [`object`]: here they become plain code."""

import re
from typing import Any

import griffe

_REFERENCE = re.compile(r"\[(`[^`\]]+`)\](?![\[(])")


class PlainReferences(griffe.Extension):
    """Takes the brackets away."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring:
            obj.docstring.value = _REFERENCE.sub(r"\1", obj.docstring.value)
