"""XML documents of unknown origin, parsed with defusedxml, and the values in them."""

import base64
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser
from transformers.utils import logging

from .ecg import ReadEcg, RecordError, as_read, count_standard

logger = logging.get_logger(__name__)

_MOST_NODES = 1_000_000  # elements and attributes
_DEEPEST = 200

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6}


class _BoundedBuilder(TreeBuilder):
    """Builds elements whose names have no prefix. Raises `RecordError` beyond a depth and a number of them."""

    def __init__(self, path: Path):
        super().__init__()
        self.path, self.depth, self.nodes = path, 0, 0

    def start(self, tag: Any, attrs: dict[Any, Any]) -> Element:
        self.depth, self.nodes = self.depth + 1, self.nodes + 1 + len(attrs)
        if self.depth > _DEEPEST or self.nodes > _MOST_NODES:
            raise RecordError(self.path, "too large", f"more than {_MOST_NODES:,} elements, or nested deeper than {_DEEPEST}")
        return super().start(_local(tag), {_local(name): value for name, value in attrs.items()})

    def end(self, tag: Any) -> Element:
        self.depth -= 1
        return super().end(_local(tag))


class _Parser(DefusedXMLParser):
    """Refuses entities and a DTD inside the document; a DTD in another file, as GE MUSE names one, is not opened."""

    def defused_start_doctype_decl(self, name: str, sysid: Any, pubid: Any, has_internal_subset: bool) -> None:
        if has_internal_subset:
            super().defused_start_doctype_decl(name, sysid, pubid, has_internal_subset)


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def parse_xml(path: Path) -> Element:
    """Return the root of a document. Raises `RecordError` if it is too large or declares entities; `ParseError`, `ValueError`."""
    parser = _Parser(target=_BoundedBuilder(path), forbid_dtd=True, forbid_entities=True, forbid_external=True)
    try:
        parser.feed(path.read_bytes())
        return parser.close()
    except DefusedXmlException as error:
        detail = f"it declares entities or a DTD of its own, which no ECG needs and an attack would ({error})"
        raise RecordError(path, "forbidden XML", detail) from error


def text_of(parent: Element, place: str = ".") -> str:
    """Return the text of an element in `parent`, by default its own; an empty one if there is none."""
    return (parent.findtext(place) or "").strip()


def attribute_of(parent: Element, place: str, name: str) -> str:
    """Return an attribute of an element in `parent`; an empty text if there is none."""
    found = parent.find(place)
    return "" if found is None else found.get(name, "").strip()


def number_of(text: str | None, what: str, positive: bool = False) -> float:
    """Return a finite number. Raises `ValueError`."""
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or (positive and number <= 0):
        raise ValueError(f"{what} is {text!r}, expected a {'positive ' if positive else ''}number")
    return number


def numbers_of(text: str, what: str) -> np.ndarray:
    """Return the numbers in a text, separated by spaces. Raises `ValueError`."""
    values = np.array(text.split(), dtype=np.float64)
    if not values.size or not np.isfinite(values).all():
        raise ValueError(f"{what} has no samples, or some that are no numbers")
    return values


def decoded(text: str, what: str) -> bytes:
    """Return the bytes of a base64 text. Raises `ValueError`."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError as error:
        raise ValueError(f"{what} is no base64: {error}") from error


def rhythm_of(path: Path, rate: float, names: Sequence[str], samples: Sequence[tuple[np.ndarray, str | None]]) -> ReadEcg:
    """Return the leads of a rhythm from their samples, which must be equally long, and units. Raises `RecordError`."""
    rows = [row for row, _ in samples]
    if not rows or not rows[0].size:
        raise RecordError(path, "no rhythm", "a rhythm without leads or samples")
    if len({len(row) for row in rows}) != 1:
        lengths = ", ".join(f"{name} {len(row)}" for name, row in zip(names, rows, strict=True))
        raise RecordError(path, "several lengths", f"leads of one rhythm have different numbers of samples: {lengths}")
    return as_read(path, np.stack(rows), rate, names, [unit for _, unit in samples])


def largest_rhythm(path: Path, rhythms: list[ReadEcg], kinds: Sequence[str], expected: str) -> ReadEcg:
    """Return the rhythm with the most samples of standard leads. Raises `RecordError` if there is none."""
    if not rhythms:
        described = ", ".join(kind or "one without type" for kind in kinds) or "nothing"
        raise RecordError(path, "no rhythm", f"it holds {described}, expected {expected}")
    sizes = [count_standard(ecg.lead_names or []) * ecg.signal.shape[1] for ecg, _ in rhythms]
    if len(rhythms) > 1:
        logger.warning(f"{path}: of {len(rhythms)} rhythms, number {sizes.index(max(sizes)) + 1} is read, the longest.")
    return rhythms[sizes.index(max(sizes))]
