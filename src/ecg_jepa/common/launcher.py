"""Who started this process: `accelerate launch`, `torchrun` or nobody; and what the user said to them."""

import argparse
import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

THREADS = "OMP_NUM_THREADS"

# Of which launchers leave at least one in the environment of what they start.
TRACES = ("ACCELERATE_MIXED_PRECISION", "LOCAL_RANK")

_MODULES = {"accelerate.commands.launch": "accelerate launch", "torch.distributed.run": "torchrun"}
_SCRIPTS = {"accelerate-launch": "accelerate launch", "torchrun": "torchrun"}


@dataclass(frozen=True)
class Launcher:
    """
    A launcher that runs.

    Args:
        name: `"accelerate launch"` or `"torchrun"`.
        words: that it was called with.
        environment: in which it was called.
        given: the environment that it gave to what it started.
    """

    name: str
    words: tuple[str, ...]
    environment: Mapping[str, str]
    given: Mapping[str, str]

    @cached_property
    def arguments(self) -> argparse.Namespace | None:
        """Its words as it understood them; `None` if it is of a version that understands other words than the one here."""
        # Imported only where there is a launcher: they take a moment.
        from accelerate.commands.launch import launch_command_parser
        from torch.distributed.run import get_args_parser

        parser = get_args_parser() if self.name == "torchrun" else launch_command_parser()
        with contextlib.suppress(SystemExit), open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            return parser.parse_args(self.words)
        return None

    @property
    def command(self) -> str:
        """What it starts: a script or `-m` and a module, without the words that follow."""
        if self.arguments is None:
            return "training/pretrain.py"
        return ("-m " if self.arguments.module else "") + self.arguments.training_script

    @property
    def processes(self) -> int:
        """How many processes it was asked for, on all machines; 1 if nothing was said."""
        started = int(self.given.get("WORLD_SIZE", 1))
        if self.name == "torchrun" or self.arguments is None:
            return started
        asked = self.arguments.num_processes or self._configured_processes(self.arguments)
        return max(started, asked)

    def _configured_processes(self, arguments: argparse.Namespace) -> int:
        """Of the file of `accelerate config` that the launcher has read, if it has."""
        from accelerate.commands.config import load_config_from_file
        from accelerate.commands.config.config_args import default_config_file

        if arguments.config_file is None and (arguments.cpu or not Path(default_config_file).is_file()):
            return 1
        return int(getattr(load_config_from_file(arguments.config_file), "num_processes", 1))

    def chose_threads(self, value: str) -> bool:
        """Whether this value of OMP_NUM_THREADS is the launcher's own choice: nobody told it one, nor another one since."""
        told = THREADS in self.environment or getattr(self.arguments, "num_cpu_threads_per_process", None) is not None
        return not told and self.given.get(THREADS) == value


def find_launcher() -> Launcher | None:
    """The nearest launcher among the processes that led to this one, as far as they may be looked at; `None` if there is none."""
    if not any(name in os.environ for name in TRACES):
        return None
    with contextlib.suppress(OSError):  # of a process of somebody else, or one that has ended meanwhile
        child = os.getpid()
        for process in _ancestors():
            found = _as_launcher(_parts(process, "cmdline"))
            if found is not None:
                name, words = found
                return Launcher(name, tuple(words), _environment(process), _environment(child))
            child = process
    return None


def _ancestors() -> Iterator[int]:
    """Numbers of the processes that led to this one, the nearest first."""
    process = os.getppid()
    while process > 0:
        yield process
        status = Path(f"/proc/{process}/status").read_text()
        process = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("PPid:"))


def _parts(process: int, file: str) -> list[str]:
    return Path(f"/proc/{process}/{file}").read_bytes().decode(errors="surrogateescape").split("\0")[:-1]


def _environment(process: int) -> dict[str, str]:
    """As it was when the process began."""
    return dict(part.split("=", 1) for part in _parts(process, "environ") if "=" in part)


def _as_launcher(command_line: list[str]) -> tuple[str, list[str]] | None:
    """Name and words of a launcher, if that is what this command line is of."""
    rest = command_line[1:]
    while rest and rest[0].startswith("-") and rest[0] != "-m":  # switches of Python, of which two have a value
        rest = rest[2 if rest[0] in ("-W", "-X") else 1 :]
    if rest[:1] == ["-m"]:
        name, words = _MODULES.get("".join(rest[1:2])), rest[2:]
    else:
        script, words = Path("".join(rest[:1])).name, rest[1:]
        if script == "accelerate" and words[:1] == ["launch"]:
            script, words = "accelerate-launch", words[1:]
        name = _SCRIPTS.get(script)
    return None if name is None else (name, words)
