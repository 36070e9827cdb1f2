"""TorchScript, whose calls torch shows to no mode."""

from collections.abc import Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from zoo.gradients.graphs._provenance.patches import Function, Patch


def run(
    call: Function,
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


def calls_python(script: Any) -> bool:
    """Return whether a script calls operators that are not torch's own, or functions that stay in Python."""
    if script not in _calls_python:
        kinds = set(_kinds_in(script.inlined_graph))
        own = "prim::PythonOp" not in kinds and all(kind.startswith(("aten::", "prim::")) for kind in kinds)
        _calls_python[script] = not own
    return _calls_python[script]


_calls_python: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def _kinds_in(block: Any) -> Iterator[str]:
    for node in block.nodes():
        yield node.kind()
        for inner in node.blocks():
            yield from _kinds_in(inner)


def tells(result: Any) -> bool:
    """Tell whether a script gives anything to Python but tensors."""
    if isinstance(result, tuple | list):
        return any(map(tells, result))
    if isinstance(result, dict):
        return any(map(tells, result.values()))
    return not isinstance(result, Tensor | None)


def _follow(follower: Any, call: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not torch._C._is_torch_function_enabled():
        return call(*args, **kwargs)
    script, *others = args
    return follower.follow_script(call, script, tuple(others), kwargs)


SCRIPTS = [Patch(kind, "__call__", _follow) for kind in (torch._C.ScriptFunction, torch._C.ScriptMethod)]
