import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from zoo.gradients.graphs._provenance.op_semantics import (
    ACCESSORS,
    CALLS_PYTHON,
    DYNAMIC_SHAPE_FROM,
    DYNAMIC_SHAPE_IF_ALONE,
    integer_arguments,
    name_of,
)

TORCH_CONSTRAINTS_GLOBALS = vars(constraints)
COLLECTIONS = (tuple, list, set, frozenset)
# Types of arguments that contain no tensors.
ATOMS = {int, float, bool, str, type(None), torch.dtype, torch.device}
PLAIN_TENSORS = {Tensor, torch.nn.Parameter, torch.nn.Buffer}
_MASK_DTYPES = (torch.bool, torch.uint8)
# Modules whose frames lie between the caller of a torch function and this module.
_INTERNAL_MODULES = ("zoo.gradients.graphs", "jaxtyping", "beartype")


def control_flow_inputs(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any
) -> list[Tensor]:
    """Return the arguments whose values a torch function has turned into a Python object or the shape of a tensor.

    The control flow of the program may depend on these values from now on.
    """
    name = name_of(func)
    if name == "__getitem__":
        parts = args[1] if isinstance(args[1], tuple) else (args[1],)
        parts = tuple(part for part in parts if type(part) is not int)  # skipped for speed
        return [t for part in parts for t in tensors_in(part) if isinstance(part, slice) or t.dtype in _MASK_DTYPES]
    if name in CALLS_PYTHON or (name in DYNAMIC_SHAPE_IF_ALONE and len(args) + len(kwargs) == 1):
        return tensors_in((args, kwargs))
    if name in DYNAMIC_SHAPE_FROM:
        named = {key: value for key, value in kwargs.items() if key != "input"}
        return tensors_in((args[DYNAMIC_SHAPE_FROM[name] :], named))
    if result is not None and name not in ACCESSORS and not tensors_in(result):
        return [] if name == "__bool__" and _called_by_distribution() else tensors_in((args, kwargs))
    return _used_as_integers(func, args, kwargs)


def _used_as_integers(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """Return the tensors that are passed for integers, such as sizes: torch converts them."""
    integers, varargs_from = integer_arguments(func)
    values = [value for i, value in enumerate(args) if i in integers or i >= varargs_from]
    values += [value for name, value in kwargs.items() if name in integers]
    return [tensor for tensor in tensors_in(values) if tensor.numel() == 1]


def in_argument_check(frame: FrameType) -> bool:
    """Return whether a frame of torch's constraints validates an argument of a distribution."""
    while frame.f_back and frame.f_globals is TORCH_CONSTRAINTS_GLOBALS:
        frame = frame.f_back
    return module_name(frame).startswith("torch.distributions")


def _called_by_distribution() -> bool:
    """Return whether a distribution calls the current torch function, to validate an argument."""
    frame = caller(sys._getframe(1))
    while frame.f_back and module_name(frame).startswith("torch."):
        if module_name(frame).startswith("torch.distributions"):
            return True
        frame = frame.f_back
    return False


def caller(frame: FrameType) -> FrameType:
    """Return the frame that called a torch function, from a frame of the tracker within it."""
    while frame.f_back and module_name(frame).startswith(_INTERNAL_MODULES):
        frame = frame.f_back
    return frame


def module_name(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors in nested tuples, lists, sets, dicts and slices, and in tensors that wrap others."""
    found: list[Tensor] = []
    for part in value if type(value) is tuple else (value,):
        kind = type(part)
        if kind is Tensor:  # for speed, as the next line: most arguments are one or the other
            found.append(part)
        elif kind not in ATOMS:
            _collect(part, found)
    return found


def _collect(value: Any, found: list[Tensor]) -> None:
    if isinstance(value, Tensor):
        found.append(value)
        if type(value) not in PLAIN_TENSORS:  # may wrap tensors, in its attributes
            _collect(vars(value), found)
    elif isinstance(value, COLLECTIONS):
        for part in value:
            _collect(part, found)
    elif isinstance(value, dict):
        _collect(tuple(value.values()), found)
    elif isinstance(value, slice):
        _collect((value.start, value.stop, value.step), found)
