import functools
import importlib
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
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
    """Context in which compiled functions run eagerly, so that what they do is seen. Torch has one for all threads.

    Without the compiler, whose import takes seconds, there is no compiled function: ``follow_compile`` sets the stance
    when it is imported.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._uses = 0
        self._set = ExitStack()
        self._is_set = False

    def __enter__(self) -> None:
        with self._lock:
            self._uses += 1
            self._take()

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._uses -= 1
            if self._uses == 0:
                self._set.close()
                self._is_set = False

    def follow_compile(self, compile: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call ``torch.compile``, which imports the compiler, in a thread that has entered this context."""
        importlib.import_module("torch._dynamo")
        with self._lock:
            self._take()
        return compile(*args, **kwargs)

    def _take(self) -> None:
        if not self._is_set and "torch._dynamo" in sys.modules:
            self._set.enter_context(torch.compiler.set_stance("force_eager"))
            self._is_set = True


uncompiled = _EagerStance()
