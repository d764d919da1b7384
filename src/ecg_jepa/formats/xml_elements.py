"""
XML documents that nobody vouches for.

They are parsed without entities: what declares or refers to one is refused, and a DTD that a document names is never looked at.
"""

import base64
import binascii
import math
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np

from .binary_formats import MISSING_FILE
from .wfdb_record import RecordError, plain_file_size

_AT_MOST = 32 << 20  # bytes; files of ten seconds have less than one million
_MOST_NODES = 1_000_000  # elements and attributes
_DEEPEST = 200


class _FoundRootError(Exception):
    """Carries the name of the root out of a parser."""


def root_name(beginning: bytes) -> str | None:
    """Name of the root of an XML document, of its first kilobytes; `None` if they are none."""

    def stop(tag: str, attributes: dict[str, str]) -> None:
        raise _FoundRootError(_local(tag))

    try:
        parser = _parser(Path())
        parser.StartElementHandler = stop
        parser.Parse(beginning, False)
    except _FoundRootError as found:
        return str(found)
    except (expat.ExpatError, RecordError, ValueError, LookupError):
        return None
    return None


def _local(tag: str) -> str:
    return tag.rpartition(":")[2]


def _parser(path: Path) -> Any:
    """An expat parser that refuses entities, and looks at no DTD."""

    def refuse(*arguments: Any) -> Any:
        raise RecordError(path, "forbidden XML", "it declares or refers to entities, which no ECG needs and an attack would")

    def doctype(name: str, system: str | None, public: str | None, has_internal_subset: bool) -> None:
        if has_internal_subset:
            raise RecordError(path, "forbidden XML", "it brings a DTD of its own, which no ECG needs and an attack would")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    parser.StartDoctypeDeclHandler = doctype
    parser.EntityDeclHandler = parser.UnparsedEntityDeclHandler = refuse
    parser.ExternalEntityRefHandler = parser.SkippedEntityHandler = refuse
    return parser


def parse_xml(path: Path) -> Element:
    """The document, names without prefixes. Raises `RecordError`, also for entities."""
    plain_file_size(path, path, MISSING_FILE, _AT_MOST)
    parser, builder = _parser(path), TreeBuilder()
    depth = nodes = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth, nodes
        depth, nodes = depth + 1, nodes + 1 + len(attributes)
        if depth > _DEEPEST or nodes > _MOST_NODES:
            detail = f"elements nest deeper than {_DEEPEST}, or there are more than {_MOST_NODES:,}"
            raise RecordError(path, "too large", detail)
        builder.start(_local(tag), {_local(name): value for name, value in attributes.items()})

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(_local(tag))

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, builder.data
    try:
        parser.Parse(path.read_bytes(), True)
    except (expat.ExpatError, ValueError, LookupError, OSError) as error:  # of encodings, too
        if isinstance(error, RecordError):
            raise
        raise RecordError(path, "unreadable XML", str(error)) from error
    return builder.close()


def text_of(element: Element | None) -> str:
    return "" if element is None else "".join(element.itertext()).strip()


def number_of(path: Path, text: str | None, what: str) -> float:
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise RecordError(path, "unreadable XML", f"{what} is {text!r}, expected a number")
    return number


def positive_number(path: Path, text: str | None, what: str) -> float:
    number = number_of(path, text, what)
    if number <= 0:
        raise RecordError(path, "unreadable XML", f"{what} is {text!r}, expected a positive number")
    return number


def numbers_of(path: Path, text: str, what: str) -> np.ndarray:
    try:
        values = np.array(text.split(), dtype=np.float64)
    except ValueError as error:
        raise RecordError(path, "unreadable XML", f"{what}: {error}") from error
    if not values.size or not np.isfinite(values).all():
        raise RecordError(path, "unreadable XML", f"{what} has no samples, or some that are no numbers")
    return values


def decoded(path: Path, text: str, what: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RecordError(path, "unreadable XML", f"{what} is no base64: {error}") from error


def attribute_of(element: Element | None, name: str) -> str:
    return "" if element is None else element.get(name, "").strip()


__all__ = ["attribute_of", "decoded", "number_of", "numbers_of", "parse_xml", "positive_number", "root_name", "text_of"]
