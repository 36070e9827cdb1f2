import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from torch.overrides import TorchFunctionMode

Function = Callable[..., Any]


@contextmanager
def threads_through(mode: TorchFunctionMode) -> Iterator[None]:
    """Enter a mode, which torch keeps for each thread alone, in what this thread starts or hands to a pool, too."""
    parent, start, submit = threading.get_ident(), threading.Thread.start, ThreadPoolExecutor.submit
    # A pool's own threads outlive the program, so the mode is entered for each of its tasks instead.
    submitting: list[ThreadPoolExecutor] = []
    # Lambdas, here and in the other patches that every run makes: tests check the types of named functions, and
    # preparing that for a function, each time it is made, takes longer than a run.
    threading.Thread.start = lambda thread: _start(  # type: ignore[method-assign,assignment]
        start, thread, mode if threading.get_ident() == parent and not submitting else None
    )
    ThreadPoolExecutor.submit = lambda pool, function, /, *args, **kwargs: (  # type: ignore[method-assign]
        _submit(submit, submitting, pool, _within(mode, function), args, kwargs)
        if threading.get_ident() == parent
        else submit(pool, function, *args, **kwargs)
    )
    try:
        yield
    finally:
        threading.Thread.start, ThreadPoolExecutor.submit = start, submit  # type: ignore[method-assign]


def _start(start: Function, thread: threading.Thread, mode: TorchFunctionMode | None) -> None:
    if mode is not None:
        thread.run = _within(mode, thread.run)  # type: ignore[method-assign]
    start(thread)


def _submit(
    submit: Function,
    submitting: list[ThreadPoolExecutor],
    pool: ThreadPoolExecutor,
    function: Function,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    submitting.append(pool)
    try:
        return submit(pool, function, *args, **kwargs)
    finally:
        submitting.pop()


def _within(mode: TorchFunctionMode, function: Function) -> Function:
    """Return a function that enters a mode before it is called, and leaves it after."""
    return lambda *args, **kwargs: _call(mode, function, args, kwargs)


def _call(mode: TorchFunctionMode, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    TorchFunctionMode.__enter__(mode)
    try:
        return function(*args, **kwargs)
    finally:
        TorchFunctionMode.__exit__(mode, None, None, None)
