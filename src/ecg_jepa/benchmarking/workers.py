"""
A process for each variant: Accelerate has one precision per process, memory is counted by process, and a compiled variant or the
modules of another implementation are in nobody's way. All wait but one.
"""

import contextlib
import logging
import multiprocessing
import pickle
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from ..common.logs import LIBRARY, start_logging

logger = logging.getLogger(__name__)

_CLOSE = "close"
_SECONDS_TO_END = 10.0


class Worker:
    """
    A thing in a process of its own, whose methods are called from here. To be used with `with`.

    Args:
        label: for messages.
        make: makes it, there; pickled, as are its arguments and what methods take and return.
        arguments: of `make`.
    """

    def __init__(self, label: str, make: Callable[..., Any], *arguments: Any):
        self.label = label
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads, or with a GPU, may hang
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
        self._process.start()
        theirs.close()
        self._made = False

    def call(self, method: str, *arguments: Any) -> Any:
        """
        What a method returns; the first call waits until the thing is made.

        Raises:
            RuntimeError, or what it raised: if it failed.
            OSError: if the process died, as for want of memory.
        """
        if not self._made:
            self._receive()
            self._made = True
        self._connection.send((method, arguments))
        return self._receive()

    def _receive(self) -> Any:
        try:
            result, error = self._connection.recv()
        except EOFError:
            self._process.join(_SECONDS_TO_END)
            raise OSError(
                f"The process of {self.label} died (status {self._process.exitcode}): there may not be memory for it, which a "
                "smaller --batch_size needs less of."
            ) from None
        if error is not None:
            raise error
        return result

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        with contextlib.suppress(OSError):  # it is gone
            self._connection.send((_CLOSE, ()))
        self._process.join(_SECONDS_TO_END if kind is None else 0.0)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()
        self._connection.close()


def _serve(connection: Connection, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Make the thing and do what is asked for, until there is nobody to ask."""
    start_logging()
    library = logging.getLogger(LIBRARY)
    if library.getEffectiveLevel() == logging.INFO:
        library.setLevel(logging.WARNING)  # a few steps have nothing to tell
    made: Any = None
    method: str = ""
    while True:
        try:
            if method:
                result = getattr(made, method)(*arguments)
            else:
                result, made = None, make(*arguments)
            connection.send((result, None))
        except Exception as error:  # told to who asked
            connection.send((None, _as_it_travels(error)))
        try:
            method, arguments = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        if method == _CLOSE:
            return


def _as_it_travels(error: Exception) -> Exception:
    """The error, or its words if it cannot be pickled."""
    logger.debug("in the process of a variant", exc_info=error)
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its class makes of that
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
