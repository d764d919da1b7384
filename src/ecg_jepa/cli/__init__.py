"""
The commands of `ecg-jepa`, one module each with a function `run` that takes its settings. `training/*.py` call the same.

Settings are parsed before anything heavy is imported: a mistake, or `--help`, is answered at once.
"""

import contextlib
import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .._utils.logs import start_logging
from .._utils.settings import fail, parse_settings

logger = logging.getLogger(__name__)

PROGRAM = "ecg-jepa"


@dataclass(frozen=True)
class Command:
    """
    Args:
        purpose: in a line.
        settings: module and name of the class of settings, or of the function that chooses it.
        example: of its use.
        shares_work: whether several processes, as launchers start them, share its work.
    """

    purpose: str
    settings: str
    example: str
    shares_work: bool = False


COMMANDS = {
    "prepare": Command(
        "Prepare a database once: read, condition, write Arrow shards that training maps into memory.",
        "ecg_jepa.cli.command_settings:PreparationSettings",
        "--database ptb-xl --data_dir RAW --output_dir PREPARED",
    ),
    "pretrain": Command(
        "Pre-train an encoder on unlabelled records.",
        "ecg_jepa.pretraining.objectives:recipe_class",
        "--config vit_s_all --data_dir PREPARED --output_dir RUN",
        shares_work=True,
    ),
    "finetune": Command(
        "Judge a pre-trained encoder on a task: linear probe, attentive probe or fine-tuning.",
        "ecg_jepa.finetuning.protocols:ProtocolSettings",
        "--config linear --model_name_or_path RUN --data_dir PREPARED --task superdiagnostic --output_dir OUT",
        shares_work=True,
    ),
    "sweep": Command(
        "Run protocols x tasks x encoders x shares of the labels x seeds; what is finished is not run again.",
        "ecg_jepa.finetuning.sweep_settings:SweepSettings",
        "--models RUN random:RUN --tasks all ST-MEM --seeds 0 1 2 --data_dir PREPARED --output_dir SWEEP",
        shares_work=True,
    ),
    "compare": Command(
        "Compare objectives of pre-training on one encoder, corpus and budget: tune, pre-train, judge, report.",
        "ecg_jepa.comparison.settings:ComparisonSettings",
        "--config compare_demo",
    ),
    "benchmark": Command(
        "Measure where the time of a pre-training step goes on this machine, and compare variants of it in turn.",
        "ecg_jepa.benchmarking.settings:BenchmarkSettings",
        "--configs vit_xs_ptbxl vit_s_all --variants mixed_precision=no mixed_precision=bf16",
    ),
    "evaluate": Command(
        "Gather finished runs into tables beside the paper's figures, or compare two folders of them.",
        "ecg_jepa.cli.command_settings:EvaluationSettings",
        "RUN_DIR... [--compare]",
    ),
    "embed": Command(
        "Embed records: a vector per record, into one Parquet file.",
        "ecg_jepa.cli.command_settings:EmbeddingSettings",
        "--model_name_or_path RUN --data_dir PREPARED --output_file embeddings.parquet",
    ),
    "predict": Command(
        "Classify records: a table of labels with probabilities and decisions, and a list of what was refused.",
        "ecg_jepa.cli.command_settings:PredictionSettings",
        "--model_name_or_path CLASSIFIER --records_dir RECORDS --output_file predictions.parquet",
    ),
    "push": Command(
        "Publish a trained model on the Hugging Face Hub: private unless --public.",
        "ecg_jepa.cli.command_settings:PushSettings",
        "DIR --repo_id ORG/NAME [--space] [--dry_run]",
    ),
    "demo": Command(
        "Serve a page on which one ECG is looked at with a classifier.",
        "ecg_jepa.cli.command_settings:DemoSettings",
        "[CHECKPOINT]",
    ),
    "convert": Command(
        "Convert a checkpoint of the reference implementation, checked against it.",
        "ecg_jepa.conversion.conversion_settings:ConversionSettings",
        "IN.pt OUT_DIR [--task superdiagnostic]",
    ),
}


def main(argv: Sequence[str] | None = None) -> None:
    """`ecg-jepa COMMAND ...`; also `python -m ecg_jepa COMMAND ...`."""
    words = list(sys.argv[1:] if argv is None else argv)
    with _readers_that_leave():
        _main(words)


def _main(words: list[str]) -> None:
    if words[:1] in ([], ["-h"], ["--help"]):
        width = max(map(len, COMMANDS))
        listing = "\n".join(f"  {name:{width}}  {command.purpose}" for name, command in COMMANDS.items())
        print(f"usage: {PROGRAM} COMMAND [settings]\n\n{listing}\n\n{PROGRAM} COMMAND --help lists the settings of a command.")
    elif words[0] == "--version":
        print(f"{PROGRAM} {version('ecg_jepa')}")
    elif words[0] not in COMMANDS:
        fail(PROGRAM, f"there is no command {words[0]!r}: choose one of {', '.join(COMMANDS)}.", status=2)
    else:
        run_command(words[0], words[1:], f"{PROGRAM} {words[0]}")


def run_script(name: str, script: str) -> None:
    """A command as `training/*.py` run it: `script` is their `__file__`."""
    # Python puts the folder of a script first on its path, where our evaluate.py would hide the library of that name.
    folder = Path(script).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != folder]
    run_command(name, sys.argv[1:], Path(script).name)


def run_command(name: str, words: Sequence[str], prog: str) -> None:
    """
    Parse the settings of a command and run it.

    Raises:
        SystemExit: with status 2 for settings that cannot be, 1 for files and values that do not fit; each with one line. With
            `TRANSFORMERS_VERBOSITY=debug`, errors keep their traceback.
    """
    start_logging()
    command = COMMANDS[name]
    description = f"{command.purpose}\n\n  {prog} {command.example}"
    settings: Any = parse_settings(_load(command.settings), words, prog, description)
    count = int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 1
    if count > 1 and not command.shares_work:
        fail(prog, f"{count} processes would each do all of this and write to the same files: start it once, without a launcher.")
    try:
        with _readers_that_leave():
            importlib.import_module(f".{name}", __name__).run(settings)
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
    except Exception as error:
        if logger.isEnabledFor(logging.DEBUG) or not isinstance(error, _expected_errors()):
            raise
        fail(prog, error)


def _expected_errors() -> tuple[type[Exception], ...]:
    """What files, values and disks lead to, which a sentence says better than a traceback."""
    from safetensors import SafetensorError  # of a full disk, too

    return OSError, ValueError, FloatingPointError, SafetensorError


@contextlib.contextmanager
def _readers_that_leave() -> Iterator[None]:
    """Who read the output, such as `head`, may have seen enough."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _load(place: str) -> type | Callable[[Mapping[str, Any]], type]:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
