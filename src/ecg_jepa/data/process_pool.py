"""A `map` over processes that preparation and synthetic records share."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process
from multiprocessing.context import BaseContext
from typing import Any


@contextmanager
def process_map(num_proc: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """
    Yield a `map` over `num_proc` processes that keeps the order; Python's own if `num_proc` is 1.

    Raises:
        ChildProcessError: if a process dies, as it does when memory runs out.
    """
    if num_proc == 1:
        yield map
        return
    context: BaseContext = get_context("fork")
    if threading.active_count() > 1:
        # A fork would wait for ever for a lock that another thread, of a page or a tracker, held.
        context = get_context("forkserver")
        context.set_forkserver_preload(["ecg_jepa.data.builders.base"])
    pool = ProcessPoolExecutor(num_proc, mp_context=context, initializer=_end_with_parent)
    try:
        yield pool.map
    except BrokenProcessPool as error:
        raise ChildProcessError(
            "A process of the preparation died, perhaps for lack of memory, or in a script without `if __name__ == '__main__':`. "
            "Run the same again, with a lower num_proc."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """End this process when its parent is gone: workers of a killed preparation must not go on writing, or hold its lock."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
