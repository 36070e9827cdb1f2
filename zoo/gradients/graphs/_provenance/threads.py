import threading
from concurrent.futures import ThreadPoolExecutor
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


THREADS = [Patch(threading.Thread, "start", _start), Patch(ThreadPoolExecutor, "submit", _submit)]


def _within(mode: TorchFunctionMode, function: Function) -> Function:
    """Return a function that enters a mode before it is called, and leaves it after."""
    return lambda *args, **kwargs: _call(mode, function, args, kwargs)


def _call(mode: TorchFunctionMode, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    with mode:
        return function(*args, **kwargs)
