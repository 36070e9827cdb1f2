from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import torch
from torch import Tensor

SCRIPTS = (torch._C.ScriptFunction, torch._C.ScriptMethod)
Follow = Callable[[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]], Any]


def run(script: Callable[..., Any], *args: Tensor | Any, **kwargs: Tensor | Any) -> Any:
    """Call a script, whose arguments are no sizes."""
    return script(*args, **kwargs)


@contextmanager
def scripts_through(follow: Follow) -> Iterator[None]:
    """Let calls of TorchScript, which torch shows to no mode, pass through a function.

    Args:
        follow: is given ``run`` and its arguments. In this thread alone, and not where modes are switched off.
    """
    thread = get_ident()

    def through(call: Callable[..., Any]) -> Callable[..., Any]:
        def followed(*args: Any, **kwargs: Any) -> Any:
            if get_ident() != thread or not torch._C._is_torch_function_enabled():
                return call(*args, **kwargs)
            return follow(run, (call, *args), kwargs)

        return followed

    calls = [kind.__call__ for kind in SCRIPTS]
    try:
        for kind, call in zip(SCRIPTS, calls, strict=True):
            kind.__call__ = through(call)  # type: ignore[method-assign]
        yield
    finally:
        for kind, call in zip(SCRIPTS, calls, strict=True):
            kind.__call__ = call  # type: ignore[method-assign]
