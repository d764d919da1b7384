import re
from dataclasses import dataclass
from typing import Literal

import pytest

from ecg_jepa.arguments import option, parse_arguments, write_yaml


@dataclass
class Arguments:
    max_steps: int = option(10, "steps")
    learning_rate: float = option(1e-3, "rate")
    databases: list[str] = option(["a=1"], "databases")
    compile: bool = option(False, "compile")
    precision: Literal["no", "bf16"] = option("no", "precision")
    path: str | None = option(None, "path")

    def __post_init__(self):
        if self.max_steps < 1:
            raise ValueError("max_steps must be at least 1.")


@pytest.fixture
def config(tmp_path):
    def write(text):
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_flags_win_over_the_file(config):
    path = config("max_steps: 5\nlearning_rate: 1e-4\ndatabases: [b=0.5, c=0.5]\ncompile: true\npath: null\n")
    arguments = parse_arguments(Arguments, ["--config", path, "--max_steps", "7"])
    assert arguments == Arguments(7, 1e-4, ["b=0.5", "c=0.5"], True, "no", None)


def test_defaults_without_a_file():
    assert parse_arguments(Arguments, []) == Arguments()


def test_round_trip(config, tmp_path):
    arguments = Arguments(3, -2.5e-5, ["x=1"], True, "bf16", "somewhere with spaces")
    write_yaml(arguments, tmp_path / "out.yaml")
    assert parse_arguments(Arguments, ["--config", str(tmp_path / "out.yaml")]) == arguments


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        ("max_step: 5", [], "unknown key in .*'max_step'; did you mean 'max_steps'"),
        ("zzz: 5", [], "valid are: max_steps, learning_rate"),
        ("", ["--max_step", "5"], "unknown flag: 'max_step'; did you mean 'max_steps'"),
        ("max_steps: many", [], "invalid int value: 'many'"),
        ("max_steps: 2.5", [], "invalid int value"),
        ("precision: fp8", [], "invalid choice"),
        ("max_steps: 0", [], "max_steps must be at least 1"),
        ("max_steps: {a: 1}", [], "must be flat"),
        ("- a\n- b", [], "key: value"),
        ("a: [", [], "no YAML"),
        ("", ["stray"], "unexpected 'stray'"),
    ],
)
def test_mistakes_are_named(config, capsys, text, flags, message):
    with pytest.raises(SystemExit) as error:
        parse_arguments(Arguments, ["--config", config(text), *flags])
    assert error.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_missing_file(capsys):
    with pytest.raises(SystemExit):
        parse_arguments(Arguments, ["--config", "nowhere.yaml"])
    assert "no configuration file nowhere.yaml" in capsys.readouterr().err
