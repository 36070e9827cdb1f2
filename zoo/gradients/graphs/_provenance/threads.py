import _thread
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from typing import Any

from torch.overrides import TorchFunctionMode

from zoo.gradients.graphs._provenance.patches import Function, Patch


def _start(mode: TorchFunctionMode, start: Function, args: tuple[threading.Thread], kwargs: dict[str, Any]) -> None:
    """Enter a mode, which torch keeps for each thread alone, in a thread that is started."""
    (thread,) = args
    thread.run = _within(mode, thread.run)  # type: ignore[method-assign]
    start(thread)


def _submit(mode: TorchFunctionMode, submit: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Enter a mode in a task of a pool, whose own threads outlive the program."""
    pool, function, *others = args
    return submit(pool, _within(mode, function), *others, **kwargs)


def _start_new(mode: TorchFunctionMode, start: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Enter a mode in a thread that is started without an object of its own."""
    function, *others = args
    return start(_within(mode, function), *others, **kwargs)


def _call_in_pool(mode: TorchFunctionMode, call: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Enter a mode in the tasks of a pool of threads of multiprocessing, given by position or by name."""
    pool, *others = args
    if others:
        others[0] = _within(mode, others[0])
    else:
        kwargs = {**kwargs, "func": _within(mode, kwargs["func"])}
    return call(pool, *others, **kwargs)


THREADS = [
    Patch(threading.Thread, "start", _start),
    Patch(_thread, "start_new_thread", _start_new),
    Patch(ThreadPoolExecutor, "submit", _submit),
    *(Patch(ThreadPool, name, _call_in_pool) for name in ("apply_async", "_map_async", "imap", "imap_unordered")),
]


def _within(mode: TorchFunctionMode, function: Function) -> Function:
    """Return a function that enters a mode before it is called, and leaves it after."""
    return lambda *args, **kwargs: _call(mode, function, args, kwargs)


def _call(mode: TorchFunctionMode, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    with mode:
        return function(*args, **kwargs)
