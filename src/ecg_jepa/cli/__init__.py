"""The commands of `ecg-jepa`, a module each. Settings are parsed before pandas, scikit-learn or matplotlib are imported."""

import importlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from pkgutil import resolve_name
from typing import NamedTuple

from safetensors import SafetensorError

from .._utils.logs import start_logging
from .._utils.settings import fail, parse_settings

logger = logging.getLogger(__name__)

PROGRAM = "ecg-jepa"


class Command(NamedTuple):
    """Help for a command, and where its settings are."""

    settings: str  # module and name of a class, or of a function that chooses it
    purpose: str
    example: str
    shares_work: bool = False  # among several processes


COMMANDS = {
    "prepare": Command(
        "cli.prepare:PrepareSettings",
        "Prepare a database once: read, condition, write Arrow shards that training maps into memory.",
        "--database ptb-xl --data_dir RAW --output_dir PREPARED",
    ),
    "pretrain": Command(
        "pretraining.objectives:recipe_class",
        "Pre-train an encoder on unlabelled records.",
        "--config vit_s_all --data_dir PREPARED --output_dir RUN",
        shares_work=True,
    ),
    "finetune": Command(
        "finetuning.protocols:FinetuneSettings",
        "Train a classifier on an encoder and test it: linear probe, attentive probe or fine-tuning.",
        "--config linear --model_name_or_path RUN --data_dir PREPARED --task superdiagnostic --output_dir OUT",
        shares_work=True,
    ),
    "sweep": Command(
        "finetuning.sweep_plan:SweepSettings",
        "Run protocols x tasks x encoders x shares of the labels x seeds; what is finished is not run again.",
        "--models RUN random:RUN --tasks all ST-MEM --seeds 0 1 2 --data_dir PREPARED --output_dir SWEEP",
        shares_work=True,
    ),
    "evaluate": Command(
        "cli.evaluate:EvaluateSettings",
        "Gather finished runs into tables beside the paper's results, or compare two folders of them.",
        "RUN_DIR... [--compare]",
    ),
    "embed": Command(
        "cli.embed:EmbedSettings",
        "Embed records: a vector per record, into one Parquet file.",
        "--model_name_or_path RUN --data_dir PREPARED --output_file embeddings.parquet",
    ),
    "predict": Command(
        "cli.predict:PredictSettings",
        "Classify records: a table of labels with probabilities and decisions, and a list of what was refused.",
        "--model_name_or_path CLASSIFIER --records_dir RECORDS --output_file predictions.parquet",
    ),
    "push": Command(
        "cli.push:PushSettings",
        "Publish a trained model on the Hugging Face Hub: private unless --public.",
        "DIR --repo_id ORG/NAME [--space] [--dry_run]",
    ),
    "demo": Command("cli.demo:DemoSettings", "Serve a page that shows one ECG and its labels.", "[CHECKPOINT]"),
    "convert": Command(
        "cli.convert:ConvertSettings",
        "Convert a checkpoint of the reference implementation, checked against it.",
        "IN.pt OUT_DIR [--task superdiagnostic]",
    ),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run `ecg-jepa COMMAND ...`, or `python -m ecg_jepa COMMAND ...`."""
    words = list(sys.argv[1:] if argv is None else argv)
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
    """Run a command as `training/*.py` do, whose `__file__` is `script`."""
    # Python puts the folder of a script first on its path, where our evaluate.py would hide the library of that name.
    folder = Path(script).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != folder]
    run_command(name, sys.argv[1:], Path(script).name)


def run_command(name: str, words: Sequence[str], prog: str) -> None:
    """
    Parse the settings of a command and run it; a reader of the output that closes it, such as `head`, ends it without an error.
    Raises `SystemExit` with one line, and status 2 for bad settings, 1 for files and values that do not fit; with
    `TRANSFORMERS_VERBOSITY=debug`, the latter keep their traceback.
    """
    start_logging()
    command = COMMANDS[name]
    try:
        description = f"{command.purpose}\n\n  {prog} {command.example}"
        settings = parse_settings(resolve_name(f"ecg_jepa.{command.settings}"), words, prog, description)
        count = int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 1
        if count > 1 and not command.shares_work:
            fail(prog, f"{count} processes would each do all of this and write to the same files: start it without a launcher.")
        importlib.import_module(f".{name}", __name__).run(settings)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
    except (OSError, ValueError, FloatingPointError, SafetensorError) as error:  # of files, values and full disks
        if logger.isEnabledFor(logging.DEBUG):
            raise
        fail(prog, error)
