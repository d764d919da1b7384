"""Flat YAML plus command-line flags -> a dataclass. The keys of the file are the flags; flags win."""

import argparse
import contextlib
import dataclasses
import difflib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from transformers import HfArgumentParser

T = TypeVar("T")


def option(default: Any, text: str) -> Any:
    """A dataclass field with a default and a line of help; a list is copied for every instance."""
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata={"help": text})
    return dataclasses.field(default=default, metadata={"help": text})


def parse_arguments(arguments_class: type[T], argv: Sequence[str] | None = None, description: str | None = None) -> T:
    """
    Fill `arguments_class` from `--config FILE.yaml` and flags.

    Args:
        arguments_class: a dataclass as `HfArgumentParser` reads it; a `ValueError` of its `__post_init__` becomes an error
            message of the command line.
        argv: words of the command line, default `sys.argv[1:]`.

    Raises:
        SystemExit: with status 2 and a message for unknown keys (naming the nearest valid one) and bad values.
    """
    parser = HfArgumentParser(arguments_class, allow_abbrev=False, description=description)  # type: ignore[arg-type]
    parser.add_argument("--config", metavar="FILE", help="YAML file whose keys are the flags; flags win")
    config_parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, prog=parser.prog)
    config_parser.add_argument("--config")
    options, flags = config_parser.parse_known_args(sys.argv[1:] if argv is None else list(argv))
    words = [*_yaml_flags(options.config, arguments_class, parser), *flags]
    try:
        arguments, *_, unknown = parser.parse_args_into_dataclasses(
            words, return_remaining_strings=True, look_for_args_file=False
        )
    except ValueError as error:
        parser.error(str(error))
    for word in unknown:
        if word.startswith("--"):
            _unknown_key(parser, arguments_class, word.removeprefix("--").split("=")[0], "flag")
    if unknown:
        parser.error(f"unexpected {' '.join(unknown)!r}")
    return arguments


@contextlib.contextmanager
def inputs_of(script: str) -> Iterator[None]:
    """Around the opening of what the user named: a missing or unfit file ends the script with its message, not a traceback."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise SystemExit(f"{script}: {error}") from error


def write_yaml(arguments: Any, path: str | Path) -> None:
    """Write a dataclass of arguments so that `--config` reads it back; `None` values are left out."""
    values = {key: value for key, value in dataclasses.asdict(arguments).items() if value is not None}
    Path(path).write_text(yaml.safe_dump(values, sort_keys=False))


def _yaml_flags(path: str | None, arguments_class: type, parser: argparse.ArgumentParser) -> list[str]:
    if path is None:
        return []
    if not Path(path).is_file():
        parser.error(f"no configuration file {path}")
    try:
        values = yaml.safe_load(Path(path).read_text())
    except yaml.YAMLError as error:
        parser.error(f"{path} is no YAML: {error}")
    if values is None:
        return []
    if not isinstance(values, dict):
        parser.error(f"{path} must hold 'key: value' lines")
    known = {field.name for field in dataclasses.fields(arguments_class)}
    words = []
    for key, value in values.items():
        if key not in known:
            _unknown_key(parser, arguments_class, str(key), f"key in {path}")
        if isinstance(value, dict):
            parser.error(f"{path}: {key} has keys of its own, but the file must be flat")
        if value is None or value == []:
            continue
        items = value if isinstance(value, list) else [value]
        # One word for a single value, so that a negative number is not taken for a flag.
        words += [f"--{key}={items[0]}"] if len(items) == 1 else [f"--{key}", *map(str, items)]
    return words


def _unknown_key(parser: argparse.ArgumentParser, arguments_class: type, key: str, kind: str) -> NoReturn:
    known = [field.name for field in dataclasses.fields(arguments_class)]
    nearest = difflib.get_close_matches(key, known, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else f"; valid are: {', '.join(known)}"
    parser.error(f"unknown {kind}: {key!r}{hint}")
