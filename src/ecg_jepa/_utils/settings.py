"""
The one road from YAML, flags and Python to settings.

Settings are a flat dataclass whose fields are the keys of the file and the flags of the command line; flags win. Whatever the
source, pydantic holds every value against the type of its field: `1e-3` is a number in YAML, on the command line and in a sweep.
"""

import argparse
import dataclasses
import difflib
import math
import os
import sys
import types
import typing
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, dataclass_transform

import pydantic
import yaml

from .files import replace_file, shipped

T = TypeVar("T")

_CHECKS = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)
_FALSE_AND_TRUE = ("false", "true")


def option(default: Any = dataclasses.MISSING, text: str = "", *, positional: bool = False, run_only: bool = False) -> Any:
    """
    A field of settings.

    Args:
        default: none if it must be given; a list is copied for every instance.
        text: a line of help.
        positional: without a flag of its own, as `evaluate RUN_DIR` takes it.
        run_only: decides only this run (where it writes, how often it logs), not the result; see [`deciding_values`].
    """
    metadata = {"help": text, "positional": positional, "run_only": run_only}
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass_transform(field_specifiers=(option,))
def settings(cls: type[T]) -> type[T]:
    """
    Class decorator: a dataclass whose values are checked however it is made, and which lists everything that is wrong.

    Raises (its instances):
        ValueError: for values of another type, NaN and infinity, and whatever `__post_init__` refuses.
    """
    made = pydantic.dataclasses.dataclass(config=_CHECKS)(cls)
    return typing.cast(type[T], made)


def make_settings(cls: type[T], values: Mapping[str, Any]) -> T:
    """
    Settings from keys and values, which may be text as on the command line.

    Raises:
        ValueError: in one line, for unknown keys (naming the nearest), for values of another type, and for those that are missing
            or do not fit together.
    """
    for key in values:
        if key not in field_names(cls):
            raise ValueError(f"unknown setting: {_unknown(cls, str(key))}")
    kinds = typing.get_type_hints(cls)
    values = {key: _without_yaml_s_booleans(key, kinds[key], value) for key, value in values.items()}
    # One value stands for a list of one.
    values = {key: [value] if _is_list(kinds[key]) and not isinstance(value, list) else value for key, value in values.items()}
    try:
        return cls(**values)
    except pydantic.ValidationError as error:
        raise ValueError(_in_words(error)) from None


def _without_yaml_s_booleans(key: str, kind: Any, value: Any) -> Any:
    """
    YAML reads `no`, `off`, `yes` and `on` as booleans, which pydantic would count as 0 and 1: a choice that is spelt "no" is
    meant by the one, and a mistake is named.
    """
    if isinstance(value, list):
        return [_without_yaml_s_booleans(key, kind, each) for each in value]
    kinds = _alternatives(kind)
    if not isinstance(value, bool) or bool in kinds:
        return value
    if value is False and "no" in _choices(kinds):
        return "no"
    raise ValueError(f"invalid {key}={value!r}: expected another value than true or false (in YAML also yes, no, on and off).")


def field_names(cls: type) -> list[str]:
    """The keys of a class of settings."""
    return [field.name for field in dataclasses.fields(cls)]


def deciding_values(settings: Any) -> dict[str, Any]:
    """Return the settings that decide the result: all but those declared with `run_only=True`."""
    return {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings) if not f.metadata.get("run_only")}


def check_at_least(settings: Any, minimum: float, *names: str) -> None:
    """Raise `ValueError` for the first of the named numbers that is below `minimum`; `None` is none."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < minimum:
            raise ValueError(f"{name}={value} must be at least {minimum}.")


def check_share(settings: Any, *names: str, below_one: bool = False) -> None:
    """Raise `ValueError` for the first of the named numbers that does not lie between 0 and 1, or is 1 where it must be below."""
    for name in names:
        value = getattr(settings, name)
        if not 0 <= value <= 1 or (below_one and value == 1):
            raise ValueError(f"{name}={value} must lie between 0 and 1" + (", and be less than 1." if below_one else "."))


def check_seed(settings: Any, *names: str) -> None:
    """Raise `ValueError` for the first of the named numbers that is no seed of NumPy's."""
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
    Settings from `--config FILE.yaml` and flags, which may be spelt with dashes or underscores.

    Args:
        choose: the class of settings, or a function that chooses it by the values given so far (text, where they are flags).
        argv: words of the command line, default `sys.argv[1:]`.
        prog, description: for messages and help.

    Raises:
        SystemExit: with status 2 and a line that says what was expected, for unknown keys, bad values and files.
    """
    prog = prog or Path(sys.argv[0]).name
    words = _normalize(sys.argv[1:] if argv is None else argv)
    try:
        config_parser = _parser(prog)
        config_parser.add_argument("--config")
        given, _ = config_parser.parse_known_args(words)
        values = {} if given.config is None else read_yaml(given.config)
        if not isinstance(choose, type):
            choose = choose(values | _loose_flags(words))
        for key in values:
            if key not in field_names(choose):
                raise ValueError(f"unknown key in {given.config}: {_unknown(choose, str(key))}")
        return make_settings(choose, values | _flags(choose, words, prog, description))
    except (ValueError, OSError) as error:
        fail(prog, error, status=2)


def fail(prog: str, error: Exception | str, status: int = 1) -> NoReturn:
    """
    End with one line on the error stream: of the first process, if there are several. `status` 2 is for bad settings, 1 for the
    rest.
    """
    message = " ".join(line.strip() for line in str(error).splitlines() if line.strip()) or type(error).__name__
    if os.environ.get("RANK", "0") != "0":
        raise SystemExit(status)
    if status == 1:
        raise SystemExit(f"{prog}: {message}")
    print(f"{prog}: {message}", file=sys.stderr)
    raise SystemExit(status)


def read_yaml(name: str) -> dict[str, Any]:
    """
    Keys and values of a flat YAML file: a path, or the name of a configuration that ships with the package; `null` is left out.

    Raises:
        ValueError: if there is no such file or it is no flat YAML.
    """
    path = Path(name)
    if not path.is_file():
        path = shipped("configs") / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in shipped("configs").glob("*.yaml")))
        raise ValueError(f"no configuration file {name}, nor is it one of those that ship with the package: {known}")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_OneOfEach) or {}  # a safe loader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{name} is no YAML: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{name} must hold 'key: value' lines")
    for key, value in values.items():
        if isinstance(value, dict):
            raise ValueError(f"{name}: {key} has keys of its own, but the file must be flat")
    return {str(key): value for key, value in values.items() if value is not None}


class _OneOfEach(yaml.SafeLoader):
    """Of a key that stands twice, YAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        if repeated := sorted({str(key) for key in keys if keys.count(key) > 1}):
            raise yaml.constructor.ConstructorError(None, None, f"{', '.join(repeated)} stands there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def shipped_configuration(settings: Any, apart_from: Collection[str]) -> str | None:
    """The shipped configuration with which `settings` agree in all but the keys `apart_from`; `None` if there is none."""
    values = dataclasses.asdict(settings)
    for path in sorted(shipped("configs").glob("*.yaml")):
        content = read_yaml(str(path))
        if not set(content) <= set(values):  # of other settings
            continue
        stated = {key: value for key, value in content.items() if key not in apart_from}
        given = {key: value for key, value in values.items() if key in apart_from and value is not None}
        try:
            expected = make_settings(type(settings), stated | given)
        except ValueError:  # not with these: another one
            continue
        if dataclasses.asdict(expected) == values:
            return path.stem
    return None


def write_yaml(settings: Any, path: str | Path, leave_out: Collection[str] = ()) -> None:
    """Write settings so that `--config` reads them back; `None` values are left out, as are those named."""
    values = {key: value for key, value in dataclasses.asdict(settings).items() if value is not None and key not in leave_out}
    replace_file(path, yaml.safe_dump(values, sort_keys=False))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _parser(prog: str, **options: Any) -> _Parser:
    return _Parser(prog=prog, add_help=False, allow_abbrev=False, **options)


def _normalize(words: Sequence[str]) -> list[str]:
    """Underscores in names of flags; `--key -1e-3` in one word, because argparse takes such a number for a flag."""
    result: list[str] = []
    for word in words:
        if word.startswith("--"):
            name, sign, value = word.partition("=")
            result.append("--" + name[2:].replace("-", "_") + sign + value)
        elif result and result[-1].startswith("--") and "=" not in result[-1] and _is_negative_number(word):
            result[-1] += f"={word}"
        else:
            result.append(word)
    return result


def _is_negative_number(word: str) -> bool:
    try:
        return word.startswith("-") and float(word) <= 0
    except ValueError:
        return False


def _loose_flags(words: Sequence[str]) -> dict[str, str]:
    """`--key value` and `--key=value` of a command line whose class of settings is not chosen yet."""
    found = {}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word.startswith("--"):
            key, sign, value = word[2:].partition("=")
            found[key] = value if sign else following
    return found


def _flags(cls: type, words: Sequence[str], prog: str, description: str | None) -> dict[str, Any]:
    """The values that the command line gives, as text; checked by whoever makes the settings."""
    options = {"description": description, "usage": "%(prog)s [settings]"}
    parser = _parser(prog, formatter_class=argparse.RawDescriptionHelpFormatter, **options)
    parser.add_argument("-h", "--help", action="help", default=argparse.SUPPRESS, help="show this page")
    parser.add_argument("--config", metavar="FILE", help="YAML file whose keys are the flags, or the name of a shipped one")
    types_of = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        _add_flag(parser, field, types_of[field.name])
    values, stray = parser.parse_known_args(words)
    for word in stray:
        if word.startswith("--"):
            raise ValueError(f"unknown flag: {_unknown(cls, word.removeprefix('--').split('=')[0])}")
    if stray:
        raise ValueError(f"unexpected {' '.join(stray)!r}")
    return {name: value for name, value in vars(values).items() if name != "config"}


def _add_flag(parser: argparse.ArgumentParser, field: dataclasses.Field, kind: Any) -> None:
    text = field.metadata.get("help", "")
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    if default not in (dataclasses.MISSING, None, "", []):
        text += f" (default: {' '.join(map(str, default)) if isinstance(default, list) else default})"
    options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": text.replace("%", "%%")}
    kinds = _alternatives(kind)
    choices = _choices(kinds)
    if field.metadata.get("positional"):
        if default is dataclasses.MISSING:
            options.pop("default")
        nargs = "+" if _is_list(kind) else "?" if "default" in options else None
        parser.add_argument(field.name, metavar=field.name.upper(), nargs=nargs, **options)
    elif bool in kinds:
        parser.add_argument(f"--{field.name}", nargs="?", const="true", metavar="|".join(_FALSE_AND_TRUE), **options)
    elif _is_list(kind):
        parser.add_argument(f"--{field.name}", nargs="*", metavar=field.name.upper(), **options)
    else:
        parser.add_argument(f"--{field.name}", metavar="|".join(choices) or field.name.upper(), **options)


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)


def _choices(kinds: Sequence[Any]) -> list[str]:
    return [str(choice) for kind in kinds if typing.get_origin(kind) is Literal for choice in typing.get_args(kind)]


def _is_list(kind: Any) -> bool:
    return any(typing.get_origin(alternative) is list for alternative in _alternatives(kind))


def _unknown(cls: type, key: str) -> str:
    known = field_names(cls)
    nearest = difflib.get_close_matches(key, known, n=1)
    return f"{key!r}" + (f"; did you mean {nearest[0]!r}?" if nearest else f"; --help lists the {len(known)} that there are")


def _in_words(error: pydantic.ValidationError) -> str:
    return "; ".join(_fault(details) for details in error.errors(include_url=False))


def _fault(details: Any) -> str:
    place = ".".join(str(part) for part in details["loc"])
    if details["type"] == "value_error":  # of __post_init__, whose messages name the setting
        return str(details["ctx"]["error"])
    if details["type"] == "missing":
        return f"{place} is missing"
    given = details["input"]
    if isinstance(given, float) and not math.isfinite(given):
        return f"{place}={given} is no finite number"
    return f"invalid {place}={given!r}: {details['msg'].removeprefix('Input ')}"
