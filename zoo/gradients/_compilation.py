import functools
import importlib
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ParamSpec, TypeVar

import torch

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def uncompilable(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Exclude a function from compilation like ``torch.compiler.disable``, but without importing the compiler."""
    disabled: list[Callable[Parameters, Result]] = []

    @functools.wraps(function)
    def called(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        if not disabled:
            disabled.append(torch.compiler.disable(function))
        return disabled[0](*args, **kwargs)

    called._torchdynamo_disable = True  # type: ignore[attr-defined]
    return called


class _EagerStance:
    """Context in which compiled functions run eagerly, so that their operations can be tracked.

    Torch has one stance for all threads: it is set from the first entry to the last exit. Importing the compiler takes
    seconds, and nothing is compiled without it, so the stance is set once the compiler is imported.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_entered = 0
        self._stance: AbstractContextManager[None] | None = None

    def __enter__(self) -> None:
        with self._lock:
            self._num_entered += 1
            self._set_stance()

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._num_entered -= 1
            if self._num_entered == 0 and self._stance is not None:
                self._stance.__exit__(None, None, None)
                self._stance = None

    def follow_compile(self, compile: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call ``torch.compile``, which imports the compiler, in a thread that has entered this context."""
        importlib.import_module("torch._dynamo")
        with self._lock:
            self._set_stance()
        return compile(*args, **kwargs)

    def _set_stance(self) -> None:
        if self._stance is None and "torch._dynamo" in sys.modules:
            self._stance = torch.compiler.set_stance("force_eager")
            self._stance.__enter__()


uncompiled = _EagerStance()
