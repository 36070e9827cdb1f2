import functools
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
    thread, start, submit = threading.get_ident(), threading.Thread.start, ThreadPoolExecutor.submit
    submitting: list[
        ThreadPoolExecutor
    ] = []  # a pool's own threads outlive the program, so the mode is entered for each of its tasks

    def within(function: Function) -> Function:
        @functools.wraps(function)
        def followed(*args: Any, **kwargs: Any) -> Any:
            TorchFunctionMode.__enter__(mode)
            try:
                return function(*args, **kwargs)
            finally:
                TorchFunctionMode.__exit__(mode, None, None, None)

        return followed

    def started(self: threading.Thread) -> None:
        if threading.get_ident() == thread and not submitting:
            self.run = within(self.run)  # type: ignore[method-assign]
        start(self)

    def submitted(self: ThreadPoolExecutor, function: Function, /, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != thread:
            return submit(self, function, *args, **kwargs)
        submitting.append(self)
        try:
            return submit(self, within(function), *args, **kwargs)
        finally:
            submitting.pop()

    threading.Thread.start, ThreadPoolExecutor.submit = started, submitted  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        threading.Thread.start, ThreadPoolExecutor.submit = start, submit  # type: ignore[method-assign]
