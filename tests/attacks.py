"""What the attacks in `stress/` share: forked runs, what they change on the disk, and whether they end as if nothing was."""

import contextlib
import io
import json
import os
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

MEMORY = 1 << 30  # bytes beyond what the tests have loaded, which no attack may need

# What changes files, as Python's audit hooks name it. `open` counts where it is for writing.
CHANGES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")


@dataclass
class Outcome:
    """How a forked process ended: its exit status (minus the signal), and what it printed."""

    status: int
    output: str


def is_change(event: str, arguments: tuple[Any, ...], directory: str) -> bool:
    if event not in CHANGES or not str(arguments[0]).startswith(directory):
        return False
    return event != "open" or (isinstance(arguments[2], int) and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)))


def forked(action: Callable[[], Any]) -> Outcome:
    """Do something in a process of its own, within bounds of memory."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            os.dup2(write, 1)
            os.dup2(write, 2)
            in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (in_use + 4 * MEMORY, -1))  # of addresses; torch maps more than it uses
            sys.stdout, sys.stderr = (io.TextIOWrapper(os.fdopen(os.dup(fd), "wb", 0), write_through=True) for fd in (1, 2))
            action()
            status = 0
        except SystemExit as error:
            if isinstance(error.code, str):
                print(error.code, file=sys.stderr)
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException as error:
            print(f"UNHANDLED {type(error).__name__}: {error}", file=sys.stderr)
        finally:
            with contextlib.suppress(Exception):
                sys.stderr.flush()
            os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        output = pipe.read().decode(errors="replace")
    return Outcome(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output)


def weights(directory: Path) -> dict[str, torch.Tensor]:
    """All that a finished run exports."""
    files = ("model.safetensors", "pretraining/model.safetensors")
    return {f"{file}:{name}": tensor for file in files for name, tensor in load_file(directory / file).items()}


def assert_same_run(directory: Path, whole: Path) -> None:
    """The same weights, bit by bit, and the same course."""
    found, expected = weights(directory), weights(whole)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    courses = [
        [line_without_times(line) for line in (path / "metrics.jsonl").read_text().splitlines()] for path in (directory, whole)
    ]
    assert courses[0] == courses[1]


def course(directory: Path) -> list[dict[str, Any]]:
    """What was logged, without times."""
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [line_without_times(line) for line in lines]


def line_without_times(line: str) -> dict[str, Any]:
    return {name: value for name, value in json.loads(line).items() if name not in ("seconds", "records_per_second")}
