from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import torch
from torch import Tensor

SCRIPTS = (torch._C.ScriptFunction, torch._C.ScriptMethod)
Follow = Callable[[Callable[..., Any], Any, tuple[Any, ...], Mapping[str, Any]], Any]


def run(
    call: Callable[..., Any],
    script: Any,
    args: tuple[Tensor | Any, ...],
    kwargs: Mapping[str, Tensor | Any],
    state: list[Tensor],
) -> Any:
    """Call a script that has a state, as one function of all these."""
    return call(script, *args, **kwargs)


def state_of(script: Any) -> list[Tensor]:
    """Find the buffers of a script's module, which it may write to; none of a function."""
    return kept_by(script.owner) if isinstance(script, torch._C.ScriptMethod) else []


def kept_by(module: Any) -> list[Tensor]:
    """Find the buffers of a scripted module, and of those in it."""
    own = [tensor for _, tensor in torch._C.BufferDict(module).items()]  # type: ignore[attr-defined]
    return own + [tensor for _, child in torch._C.ModuleDict(module).items() for tensor in kept_by(child)]


def replaces_attributes(script: Any) -> bool:
    """Tell whether a script puts something in the place of what its module keeps."""
    graph = script.inlined_graph  # must not go before what it gives
    return bool(graph.findAllNodes("prim::SetAttr"))


def tells(result: Any) -> bool:
    """Tell whether a script gives anything to Python but tensors."""
    if isinstance(result, tuple | list):
        return any(map(tells, result))
    if isinstance(result, dict):
        return any(map(tells, result.values()))
    return not isinstance(result, Tensor | None)


@contextmanager
def scripts_through(follow: Follow) -> Iterator[None]:
    """Let calls of TorchScript, which torch shows to no mode, pass through a function.

    Args:
        follow: is given what calls scripts, the script and its arguments. In this thread alone, and not where modes are
            switched off.
    """
    thread = get_ident()
    calls = [kind.__call__ for kind in SCRIPTS]
    try:
        for kind, call in zip(SCRIPTS, calls, strict=True):
            kind.__call__ = _through(follow, call, thread)  # type: ignore[method-assign]
        yield
    finally:
        for kind, call in zip(SCRIPTS, calls, strict=True):
            kind.__call__ = call  # type: ignore[method-assign]


def _through(follow: Follow, call: Callable[..., Any], thread: int) -> Callable[..., Any]:
    return lambda script, *args, **kwargs: (
        follow(call, script, args, kwargs)
        if get_ident() == thread and torch._C._is_torch_function_enabled()
        else call(script, *args, **kwargs)
    )
