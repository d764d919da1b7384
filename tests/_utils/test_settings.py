import re
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecg_jepa._utils.settings import (
    deciding_values,
    make_settings,
    option,
    parse_settings,
    read_yaml,
    settings,
    shipped_configuration,
    write_yaml,
)


@settings
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
    arguments = parse_settings(Arguments, ["--config", path, "--max_steps", "7"])
    assert arguments == Arguments(7, 1e-4, ["b=0.5", "c=0.5"], True, "no", None)


def test_defaults_without_a_file():
    assert parse_settings(Arguments, []) == Arguments()


def test_round_trip(config, tmp_path):
    arguments = Arguments(3, -2.5e-5, ["x=1"], True, "bf16", "somewhere with spaces")
    write_yaml(arguments, tmp_path / "out.yaml")
    assert parse_settings(Arguments, ["--config", str(tmp_path / "out.yaml")]) == arguments


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        ("max_step: 5", [], "unknown key in .*'max_step'; did you mean 'max_steps'"),
        ("zzz: 5", [], "--help lists the"),
        ("", ["--max_step", "5"], "unknown flag: 'max_step'; did you mean 'max_steps'"),
        ("max_steps: many", [], "invalid max_steps='many': should be a valid integer"),
        ("max_steps: 2.5", [], "invalid max_steps='2.5': should be a valid integer"),
        ("precision: fp8", [], "invalid precision='fp8': should be 'no' or 'bf16'"),
        ("learning_rate: .nan", [], "invalid learning_rate='.nan': should be a valid number"),
        ("learning_rate: nan", [], "invalid learning_rate='nan': should be a finite number"),
        ("", ["--learning_rate", "inf"], "should be a finite number"),
        ("", ["--learning_rate"], "expected one argument"),
        ("max_steps: on", [], "invalid max_steps='on': should be a valid integer"),
        ("learning_rate: no", [], "invalid learning_rate='no': should be a valid number"),
        ("precision: yes", [], "invalid precision='yes': should be 'no' or 'bf16'"),
        ("max_steps: 0", [], "max_steps must be at least 1"),
        ("max_steps: {a: 1}", [], "invalid max_steps={'a': '1'}: should be a valid integer"),
        ("- a\n- b", [], "key: value"),
        ("a: [", [], "no YAML"),
        ("a: 1\nb: 2\na: 3", [], "a stands there twice"),
        ("", ["stray"], "unexpected 'stray'"),
        ("", ["--compile", "false", "stray"], "unexpected 'stray'"),
        ("", ["-x", "3"], "unexpected '-x 3'"),
    ],
)
def test_mistakes_are_named(config, capsys, text, flags, message):
    with pytest.raises(SystemExit) as error:
        parse_settings(Arguments, ["--config", config(text), *flags])
    assert error.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)


def test_no_is_a_precision_in_yaml_too(config):
    assert parse_settings(Arguments, ["--config", config("precision: no")]).precision == "no"


def test_missing_file(capsys):
    with pytest.raises(SystemExit):
        parse_settings(Arguments, ["--config", "nowhere.yaml"])
    assert "no configuration file nowhere.yaml" in capsys.readouterr().err


def test_dashes_are_underscores_and_values_may_be_negative():
    parsed = parse_settings(Arguments, ["--max-steps", "3", "--learning-rate=-0.5", "--databases", "a-b=1", "--compile"])
    assert parsed == Arguments(3, -0.5, ["a-b=1"], True)
    assert parse_settings(Arguments, ["--compile", "false", "--learning_rate", "-1e-3"]) == Arguments(learning_rate=-1e-3)


def test_shipped_configurations_have_names(capsys):
    with pytest.raises(SystemExit):
        parse_settings(Arguments, ["--config", "vit_s_all"])
    assert "unknown key in vit_s_all: 'data_dir'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse_settings(Arguments, ["--config", "vit_m_all"])
    shipped = "attentive, data2vec_demo, demo, finetune"
    assert f"nor is it one of those that ship with the package: {shipped}" in capsys.readouterr().err


def test_everything_that_is_wrong_is_said_at_once():
    with pytest.raises(ValueError, match=r"invalid max_steps='x': .*; invalid precision='y'"):
        make_settings(Arguments, {"max_steps": "x", "precision": "y"})
    with pytest.raises(ValueError, match="unknown setting: 'max_step'; did you mean 'max_steps'"):
        make_settings(Arguments, {"max_step": 1})


@given(
    st.builds(
        Arguments,
        max_steps=st.integers(1, 10**9),
        learning_rate=st.floats(allow_nan=False, allow_infinity=False),
        databases=st.lists(st.text("abc=.1", min_size=1), min_size=1),
        compile=st.booleans(),
        precision=st.sampled_from(["no", "bf16"]),
    )
)
def test_text_means_what_values_mean(arguments):
    """What the command line and a sweep give as text becomes what YAML and Python give as values."""
    text = {"max_steps": str(arguments.max_steps), "learning_rate": repr(arguments.learning_rate)}
    text |= {"compile": str(arguments.compile).lower(), "precision": arguments.precision}
    assert make_settings(Arguments, {**text, "databases": arguments.databases}) == arguments
    words = [word for key, value in text.items() for word in (f"--{key}", value)]
    assert parse_settings(Arguments, [*words, "--databases", *arguments.databases]) == arguments


def test_required_and_positional_settings(capsys):
    @settings
    class Positional:
        folders: list[str] = option(text="folders", positional=True)
        name: str = option(text="name")

    assert parse_settings(Positional, ["a", "b", "--name", "7"]) == Positional(["a", "b"], "7")
    for words, message in ((["a"], "name is missing"), (["--name", "x"], "folders is missing")):
        with pytest.raises(SystemExit):
            parse_settings(Positional, words)
        assert message in capsys.readouterr().err


def test_positional_settings_may_stand_anywhere():
    @settings
    class Positional:
        source: str = option(text="source", positional=True)
        target: str = option("out", "target", positional=True)
        public: bool = option(False, "public")
        name: str = option("n", "name")

    expected = Positional("a", "b", True, "7")
    assert parse_settings(Positional, ["a", "--name", "7", "b", "--public"]) == expected
    assert parse_settings(Positional, ["--name=7", "a", "b", "--public", "true"]) == expected
    assert parse_settings(Positional, ["--source", "a", "--name", "7", "--target", "b", "--public"]) == expected
    assert parse_settings(Positional, ["a"]).target == "out"


def test_values_choose_the_class(config):
    @settings
    class Other:
        kind: str = option("other", "kind")
        ratio: float = option(0.5, "ratio")

    def choose(values):
        return Other if values.get("kind") == "other" else Arguments

    assert parse_settings(choose, ["--kind", "other", "--ratio", "0.25"]) == Other(ratio=0.25)
    assert parse_settings(choose, ["--config", config("kind: other\nratio: 0.25")]) == Other(ratio=0.25)
    assert parse_settings(choose, ["--max_steps", "3"]) == Arguments(3)


def test_values_of_yaml_are_text_and_null_is_left_out(config):
    path = config("a: 1e-3\nb: no\nc: [1, x]\nd: null\ne: ''\nf: ~\n")
    assert read_yaml(path) == {"a": "1e-3", "b": "no", "c": ["1", "x"], "e": ""}


def test_help_lists_every_setting(capsys):
    with pytest.raises(SystemExit) as end:
        parse_settings(Arguments, ["--max_steps", "3", "--help"], prog="program", description="What it does.")
    assert end.value.code == 0
    page = capsys.readouterr().out
    assert page.startswith("usage: program [settings]\n\nWhat it does.\n")
    for part in (
        "--max_steps MAX_STEPS",
        "steps (default: 10)",
        "--precision no|bf16",
        "--compile [true|false]",
        "--config FILE",
    ):
        assert part in page


@settings
class Wrapped:
    protocol: str = option("linear", "protocol")
    rate: float = option(1.0, "rate")
    output_dir: str = option("out", "where it is written", run_only=True)


def test_settings_of_one_run_do_not_decide_the_result(tmp_path, monkeypatch):
    chosen = Wrapped("attentive", 0.5, "elsewhere")
    assert deciding_values(chosen) == {"protocol": "attentive", "rate": 0.5}
    monkeypatch.setattr("ecg_jepa._utils.settings.shipped", lambda kind: tmp_path)
    (tmp_path / "a.yaml").write_text("max_steps: 3\n")
    assert shipped_configuration(chosen) is None
    (tmp_path / "b.yaml").write_text("protocol: attentive\nrate: 0.50\noutput_dir: of the file\n")
    assert shipped_configuration(chosen) == "b"
    (tmp_path / "b.yaml").write_text("protocol: attentive\nrate: 0.25\n")
    assert shipped_configuration(chosen) is None
    assert shipped_configuration(chosen, {"rate"}) == "b"
