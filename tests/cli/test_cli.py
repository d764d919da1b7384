"""The command line as a user meets it: quick help, one line for a mistake, logs that a file can hold."""

import dataclasses
import subprocess
import sys
from pkgutil import resolve_name

import pytest

from ecg_jepa.cli import COMMANDS, main

HEAVY = ("datasets", "pandas", "sklearn", "matplotlib")


def test_help_and_mistakes_import_nothing_heavy():
    code = f"""
import sys
from ecg_jepa.cli import COMMANDS, main
for words in [[name, "--help"] for name in COMMANDS] + [[name, "--nonsense", "1"] for name in COMMANDS]:
    try:
        main(words)
    except SystemExit as end:
        print("status", end.code)
print("heavy:", [module for module in {HEAVY} if module in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.endswith("heavy: []\n")
    assert result.stdout.count("status 0\n") == len(COMMANDS)
    for name, page in zip(COMMANDS, result.stdout.split("status 0\n"), strict=False):
        assert page.startswith(f"usage: ecg-jepa {name} [settings]")
        assert COMMANDS[name].purpose in page
    assert result.stdout.count("status 2\n") == len(COMMANDS)
    assert result.stderr.count("unknown flag: 'nonsense'") == len(COMMANDS)


def test_every_setting_has_a_line_of_help():
    for command in COMMANDS.values():
        chosen = resolve_name(f"ecg_jepa.{command.settings}")
        cls = chosen if isinstance(chosen, type) else chosen({})
        for field in dataclasses.fields(cls):
            assert field.metadata["help"], field.name


@pytest.mark.slow
def test_the_list_of_commands_and_the_version(capsys):
    width = max(map(len, COMMANDS))
    for words in ([], ["--help"]):
        main(words)
        printed = capsys.readouterr().out
        for name, command in COMMANDS.items():
            assert f"\n  {name:{width}}  {command.purpose}\n" in printed
    main(["--version"])
    assert capsys.readouterr().out.startswith("ecg-jepa 0.")
    result = subprocess.run([sys.executable, "-m", "ecg_jepa", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("ecg-jepa 0.")


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["pretrian"], 2, "there is no command 'pretrian': choose one of prepare, pretrain,"),
        (["pretrain", "--learning-rat", "1"], 2, "unknown flag: 'learning_rat'; did you mean 'learning_rate'?"),
        (["pretrain", "--learning_rate", "-1"], 2, "learning_rate=-1.0 must be at least 0"),
        (["finetune", "--protocol", "lineal"], 2, "invalid protocol='lineal': should be 'linear', 'attentive', 'finetune' or"),
        (["finetune", "--model_name_or_path", "random:xs", "--data_dir", "nowhere"], 1, "No prepared database in nowhere"),
        (["sweep", "--models", "random:xs", "--tasks", "rythm"], 2, "Unknown task 'rythm': choose one of all,"),
        (["evaluate", "nowhere"], 1, "There is no folder nowhere"),
        (["embed", "--model_name_or_path", "nowhere", "--records_dir", "x"], 1, "nowhere is no directory with a config.json"),
        (["push", "nowhere", "--repo_id", "a/b"], 1, "There is no directory nowhere"),
        (["convert", "nowhere.pt", "out"], 1, "No checkpoint at nowhere.pt"),
        (["prepare", "--database", "georgia"], 2, "output_dir is missing"),
    ],
)
def test_a_mistake_is_one_line(words, status, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(words)
    line = end.value.code if isinstance(end.value.code, str) else capsys.readouterr().err  # Python prints the former
    assert message in line
    assert len(line.strip().splitlines()) == 1
    assert line.startswith("ecg-jepa")
    assert end.value.code == status if status == 2 else isinstance(end.value.code, str)


def test_only_the_first_process_speaks(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit) as end:
        main(["evaluate", "nowhere"])
    assert end.value.code == 1
    assert capsys.readouterr().err == ""


def test_what_several_processes_would_each_do_is_refused(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match="2 processes would each do all of this"):
        main(["embed", "--model_name_or_path", "RUN", "--data_dir", "PREPARED", "--output_file", "out.parquet"])


def test_debug_keeps_the_traceback(monkeypatch):
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "debug")
    with pytest.raises(FileNotFoundError):
        main(["evaluate", "nowhere"])


@pytest.mark.slow
def test_a_log_file_holds_plain_lines(tmp_path):
    """As under SLURM, where no terminal is there to understand control codes."""
    sizes = "--hidden_size 32 --num_hidden_layers 1 --num_attention_heads 4 --pred_hidden_size 16 --pred_num_hidden_layers 1"
    recipe = "--pred_num_attention_heads 2 --crop_duration 2.5 --min_block_size 5 --batch_size 8 --max_steps 6 --warmup_steps 1"
    words = f"pretrain --synthetic_records 20 --databases synthetic=1.0 {sizes} {recipe} --logging_steps 2 --eval_steps 3".split()
    command = [sys.executable, "-m", "ecg_jepa", *words, "--mixed_precision", "no"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    lines = result.stderr.splitlines()
    assert result.returncode == 0, result.stderr
    assert not set(result.stderr) & {"\r", "\x1b"}
    steps = [line for line in lines if " step " in line]
    assert [line.split(" step ")[1].split(":")[0] for line in steps] == [
        *("0/6, held-out records", "2/6", "3/6, held-out records", "4/6", "6/6", "6/6, held-out records"),
    ]
    for line in steps:
        assert line[:4].isdigit()  # the date
    for part in ("loss", "gradient norm", "records/s", "to go"):
        assert part in steps[1]


@pytest.mark.slow
def test_a_reader_may_close_the_output():
    """As `head` does."""
    command = f"{sys.executable} -m ecg_jepa pretrain --help | head -n 1"
    result = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "usage: ecg-jepa pretrain [settings]\n"
