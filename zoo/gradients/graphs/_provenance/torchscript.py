"""TorchScript, whose calls no mode sees."""

from collections.abc import Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor

from zoo.gradients.graphs._provenance.patches import Function
from zoo.gradients.graphs._provenance.torch_internals import BufferDict, ModuleDict, ScriptMethod

_calls_python: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def call_script(
    call: Function, script: Any, args: tuple[Tensor | Any, ...], kwargs: Mapping[str, Tensor | Any], state: list[Tensor]
) -> Any:
    """Call a script, as one function of its arguments and of the buffers that are its state.

    The annotations are read by ``integer_arguments``: arguments that may be tensors are not used as sizes.
    """
    return call(script, *args, **kwargs)


def script_buffers(script: Any) -> list[Tensor]:
    """Return the buffers of a script's module, which it may write to; none for a function."""
    return _buffers_of(script.owner) if isinstance(script, ScriptMethod) else []


def _buffers_of(module: Any) -> list[Tensor]:
    own = [tensor for _, tensor in BufferDict(module).items()]
    return own + [tensor for _, child in ModuleDict(module).items() for tensor in _buffers_of(child)]


def assigns_attributes(script: Any) -> bool:
    """Return whether a script assigns to attributes of its module."""
    graph = script.inlined_graph  # a variable, since it owns the nodes
    return bool(graph.findAllNodes("prim::SetAttr"))


def calls_python(script: Any) -> bool:
    """Return whether a script calls operators that are not torch's own, or functions that stay in Python."""
    if script not in _calls_python:
        kinds = set(_kinds_in(script.inlined_graph))
        own = "prim::PythonOp" not in kinds and all(kind.startswith(("aten::", "prim::")) for kind in kinds)
        _calls_python[script] = not own
    return _calls_python[script]


def _kinds_in(block: Any) -> Iterator[str]:
    for node in block.nodes():
        yield node.kind()
        for inner in node.blocks():
            yield from _kinds_in(inner)


def returns_python_value(result: Any) -> bool:
    """Return whether a script's result holds anything but tensors."""
    if isinstance(result, tuple | list):
        return any(map(returns_python_value, result))
    if isinstance(result, dict):
        return any(map(returns_python_value, result.values()))
    return not isinstance(result, Tensor | None)
