"""
Settings from YAML files, flags and Python: flat dataclasses whose fields are the keys of the file and the flags; flags win.
pydantic checks every value against the type of its field. Values of YAML files are read as text, as flags are: `1e-3` is a number
and `no` a choice wherever it comes from.
"""

import argparse
import dataclasses
import difflib
import os
import sys
import types
import typing
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, dataclass_transform

import pydantic
import yaml

from .files import replace_file, shipped

T = TypeVar("T")


def option(default: Any = dataclasses.MISSING, text: str = "", *, positional: bool = False, run_only: bool = False) -> Any:
    """
    Declare a field of settings, with a line of help; without a default, a value is required. One that is `positional` may also be
    given without a flag, as in `evaluate RUN_DIR`; one that is `run_only` decides only this run (where it writes, how often it
    logs), not the result; see [`deciding_values`].
    """
    metadata = {"help": text, "positional": positional, "run_only": run_only}
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass_transform(field_specifiers=(option,))
def settings(cls: type[T]) -> type[T]:
    """Make a class a dataclass that raises `ValueError` for values of another type, NaN and infinity, however it is made."""
    checks = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)
    return typing.cast(type[T], pydantic.dataclasses.dataclass(config=checks)(cls))


def make_settings(cls: type[T], values: Mapping[str, Any]) -> T:
    """
    Return settings from keys and values, which may be text; a single value stands for a list of one. Raises `ValueError` in one
    line for unknown keys (with the nearest one) and for all values that are missing or do not fit.
    """
    _check_known(cls, values, "unknown setting")
    lists = {name for name, kinds in _kinds(cls).items() if list in kinds}
    values = {key: [value] if key in lists and not isinstance(value, list) else value for key, value in values.items()}
    try:
        return cls(**values)
    except pydantic.ValidationError as error:
        raise ValueError("; ".join(map(_sentence, error.errors(include_url=False)))) from None


def _check_known(cls: type, keys: Iterable[str], message: str) -> None:
    """Raise `ValueError` for the first key that is no setting, with the nearest one."""
    known = field_names(cls)
    for key in keys:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"--help lists the {len(known)} that there are"
            raise ValueError(f"{message}: {key!r}; {hint}")


def _sentence(details: Any) -> str:
    """Return what pydantic says about one value in our words."""
    if details["type"] == "value_error":  # from __post_init__, whose messages name the setting
        return str(details["ctx"]["error"])
    place = ".".join(map(str, details["loc"]))
    missing = details["type"] == "missing"
    return f"{place} is missing" if missing else f"invalid {place}={details['input']!r}: {details['msg'].removeprefix('Input ')}"


def field_names(cls: type) -> list[str]:
    """Return the keys of a class of settings."""
    return [field.name for field in dataclasses.fields(cls)]


def deciding_values(settings: Any) -> dict[str, Any]:
    """Return the settings that decide the result: all but those declared with `run_only=True`."""
    return {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings) if not f.metadata.get("run_only")}


def check_at_least(settings: Any, minimum: float, *names: str) -> None:
    """Raise `ValueError` for the first of the named numbers that is below `minimum`; `None` is allowed."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < minimum:
            raise ValueError(f"{name}={value} must be at least {minimum}.")


def check_share(settings: Any, *names: str, below_one: bool = False) -> None:
    """Raise `ValueError` for the first of the named numbers that does not lie between 0 and 1, or is 1 with `below_one`."""
    for name in names:
        value = getattr(settings, name)
        if not 0 <= value <= 1 or (below_one and value == 1):
            raise ValueError(f"{name}={value} must lie between 0 and 1" + (", and be less than 1." if below_one else "."))


def check_seed(settings: Any, *names: str) -> None:
    """Raise `ValueError` for the first of the named numbers that NumPy does not take as a seed."""
    for name in names:
        if not 0 <= getattr(settings, name) < 2**32:
            raise ValueError(f"{name}={getattr(settings, name)} must be at least 0 and less than 2**32.")


def parse_settings(
    choose: type[T] | Callable[[Mapping[str, Any]], type[T]],
    argv: Sequence[str] | None = None,
    prog: str | None = None,
    description: str | None = None,
) -> T:
    """
    Return settings from `--config FILE.yaml` and flags, which may be spelt with dashes or underscores, of the class `choose` or
    of the one that it chooses by the values given (as text). Raises `SystemExit` with status 2 and one line for unknown keys, bad
    values and bad files, and with 0 after `--help`.
    """
    prog = prog or Path(sys.argv[0]).name
    groups = _group(sys.argv[1:] if argv is None else argv)
    given = {name: words[0] for name, words in groups if words}
    try:
        values = read_yaml(given["config"]) if "config" in given else {}
        cls = choose if isinstance(choose, type) else choose(values | given)
        if any(name == "help" or "-h" in words for name, words in groups):
            print(_help(cls, prog, description), end="")
            raise SystemExit(0)
        _check_known(cls, values, f"unknown key in {given.get('config')}")
        return make_settings(cls, values | _flag_values(cls, groups))
    except (ValueError, OSError) as error:
        fail(prog, error, status=2)


def fail(prog: str, error: Exception | str, status: int = 1) -> NoReturn:
    """End with one line on the error stream of the first process. Status 2 is for bad settings, 1 for everything else."""
    message = " ".join(line.strip() for line in str(error).splitlines() if line.strip()) or type(error).__name__
    is_first = os.environ.get("RANK", "0") == "0"
    if is_first and status == 1:
        raise SystemExit(f"{prog}: {message}")
    if is_first:
        print(f"{prog}: {message}", file=sys.stderr)
    raise SystemExit(status)


def read_yaml(name: str) -> dict[str, Any]:
    """
    Return keys and values (text, or lists of text) of a flat YAML file, named by its path or as one that ships with the package;
    `null` is left out. Raises `ValueError` if there is no such file or it is no flat YAML.
    """
    path = next((path for path in (Path(name), shipped("configs") / f"{name}.yaml") if path.is_file()), None)
    if path is None:
        known = ", ".join(sorted(file.stem for file in shipped("configs").glob("*.yaml")))
        raise ValueError(f"no configuration file {name}, nor is it one of those that ship with the package: {known}")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_TextLoader) or {}  # a safe loader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{name} is no YAML: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{name} must hold 'key: value' lines")
    return {str(key): value for key, value in values.items() if value is not None}


class _TextLoader(yaml.SafeLoader):
    """Reads all values but `null` as text, and refuses keys that are given twice."""

    yaml_implicit_resolvers = {
        first: [resolver for resolver in resolvers if resolver[0] == "tag:yaml.org,2002:null"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        if repeated := sorted({str(key) for key in keys if keys.count(key) > 1}):
            raise yaml.constructor.ConstructorError(None, None, f"{', '.join(repeated)} stands there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def write_yaml(settings: Any, path: str | Path, leave_out: Collection[str] = ()) -> None:
    """Write settings so that `--config` reads them back; `None` values and those named in `leave_out` are left out."""
    values = {key: value for key, value in dataclasses.asdict(settings).items() if value is not None and key not in leave_out}
    replace_file(path, yaml.safe_dump(values, sort_keys=False))


def shipped_configuration(settings: Any, apart_from: Collection[str] = ()) -> str | None:
    """Return the shipped configuration that agrees in all settings that decide the result, apart from those named; or `None`."""
    values = dataclasses.asdict(settings)
    compared = deciding_values(settings).keys() - set(apart_from)
    own = {key: value for key, value in values.items() if key not in compared and value is not None}
    for path in sorted(shipped("configs").glob("*.yaml")):
        stated = {key: value for key, value in read_yaml(str(path)).items() if key in compared or key not in values}
        try:
            if dataclasses.asdict(make_settings(type(settings), stated | own)) == values:
                return path.stem
        except ValueError:  # a configuration of other settings
            continue
    return None


def _group(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return the name of each flag with the words up to the next one; words before the first have the name ''."""
    groups: list[tuple[str, list[str]]] = [("", [])]
    for word in words:
        if word.startswith("--"):
            name, sign, value = word[2:].partition("=")
            groups.append((name.replace("-", "_"), [value] if sign else []))
        else:
            groups[-1][1].append(word)
    return groups


def _flag_values(cls: type, groups: Sequence[tuple[str, list[str]]]) -> dict[str, Any]:
    """Return the values, as text, that the words of a command line give to settings."""
    kinds, values, loose = _kinds(cls), dict[str, Any](), list(groups[0][1])
    _check_known(cls, (name for name, _ in groups[1:] if name != "config"), "unknown flag")
    for name, words in groups[1:]:
        if list in kinds.get(name, ()):
            values[name] = words
        elif words or bool in kinds.get(name, ()):
            values[name] = words[0] if words else "true"
            loose += words[1:]
        else:
            raise ValueError(f"--{name}: expected one argument")
    values.pop("config", None)
    for field in dataclasses.fields(cls):
        if loose and field.metadata["positional"]:
            values[field.name], loose = (loose, []) if list in kinds[field.name] else (loose[0], loose[1:])
    if loose:
        raise ValueError(f"unexpected {' '.join(loose)!r}")
    return values


def _help(cls: type, prog: str, description: str | None) -> str:
    """Return the page that `--help` shows; argparse lays it out."""
    layout: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter, "usage": "%(prog)s [settings]"}
    parser = argparse.ArgumentParser(prog=prog, description=description, add_help=False, **layout)
    parser.add_argument("-h", "--help", action="store_true", help="show this page")
    parser.add_argument("--config", metavar="FILE", help="YAML file whose keys are the flags, or the name of a shipped one")
    for field in dataclasses.fields(cls):
        kinds = _kinds(cls)[field.name]
        text = field.metadata["help"].replace("%", "%%")
        default = field.default if field.default_factory is dataclasses.MISSING else " ".join(map(str, field.default_factory()))
        if default not in (dataclasses.MISSING, None, ""):
            text += f" (default: {default})"
        choices = [str(choice) for kind in kinds if typing.get_origin(kind) is Literal for choice in typing.get_args(kind)]
        metavar = "true|false" if bool in kinds else "|".join(choices) or field.name.upper()
        nargs = "*" if list in kinds else "?" if bool in kinds else None
        name = field.name if field.metadata["positional"] else f"--{field.name}"
        parser.add_argument(name, metavar=metavar, nargs=nargs, help=text)
    return parser.format_help()


def _kinds(cls: type) -> dict[str, list[Any]]:
    """Return the types that each field may have: those of a union, or its only one; lists of any type are `list`."""
    kinds = {}
    for name, hint in typing.get_type_hints(cls).items():
        found = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
        kinds[name] = [list if typing.get_origin(kind) is list else kind for kind in found]
    return kinds
