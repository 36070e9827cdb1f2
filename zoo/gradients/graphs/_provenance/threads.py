"""Threads that a program starts: modes of torch are thread-local, so the tracker is entered in each of them."""

import _thread
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from typing import Any

from zoo.gradients.graphs._provenance.patches import Function, Patch


def _start(tracker: Any, start: Function, args: tuple[threading.Thread], kwargs: dict[str, Any]) -> None:
    (thread,) = args
    thread.run = _tracked(tracker, thread.run)  # type: ignore[method-assign]
    start(thread)


def _start_new(tracker: Any, start: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    function, *others = args
    return start(_tracked(tracker, function), *others, **kwargs)


def _submit(tracker: Any, submit: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Submit a task that enters the tracker; a pool's threads may have started before the program."""
    pool, *others = args
    if others:
        others[0] = _tracked(tracker, others[0])
    else:
        kwargs = {**kwargs, "func": _tracked(tracker, kwargs["func"])}
    return submit(pool, *others, **kwargs)


THREADS = [
    Patch(threading.Thread, "start", _start),
    Patch(_thread, "start_new_thread", _start_new),
    Patch(ThreadPoolExecutor, "submit", _submit),
    *(Patch(ThreadPool, name, _submit) for name in ("apply_async", "_map_async", "imap", "imap_unordered")),
]


def _tracked(tracker: Any, function: Function) -> Function:
    """Wrap a function to enter the tracker in its thread."""

    # For error_handlers, a frame of this function handles all errors: they end the thread, and the program continues.
    def call(*args: Any, **kwargs: Any) -> Any:
        with tracker:
            return function(*args, **kwargs)

    return call
