import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from zoo.gradients.graphs._provenance.op_semantics import (
    ACCESS,
    ALONE,
    GIVE_TO_PYTHON,
    SHAPE_FROM,
    integers_of,
    name_of,
)

CONSTRAINTS = vars(constraints)
COLLECTIONS = (tuple, list, set, frozenset)
ATOMS = {int, float, bool, str, type(None), torch.dtype, torch.device}
PLAIN = {Tensor, torch.nn.Parameter, torch.nn.Buffer}
MASKS = (torch.bool, torch.uint8)
OURS = ("zoo.gradients.graphs", "jaxtyping", "beartype")  # modules, on the way from a torch function to here


def told(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> list[Tensor]:
    """Find the arguments whose values a torch function makes a Python object, or the shape of a tensor.

    Args:
        func: the torch function.
        args: its arguments.
        kwargs: its arguments by name.
        result: what it returned.
    """
    name = name_of(func)
    if name == "__getitem__":
        parts = args[1] if isinstance(args[1], tuple) else (args[1],)
        parts = tuple(part for part in parts if type(part) is not int)  # only for speed
        return [t for part in parts for t in tensors_in(part) if isinstance(part, slice) or t.dtype in MASKS]
    if name in GIVE_TO_PYTHON or (name in ALONE and len(args) + len(kwargs) == 1):
        return tensors_in((args, kwargs))
    if name in SHAPE_FROM:
        named = {key: value for key, value in kwargs.items() if key != "input"}
        return tensors_in((args[SHAPE_FROM[name] :], named))
    if result is not None and name not in ACCESS and not tensors_in(result):
        return [] if name == "__bool__" and called_by_a_distribution() else tensors_in((args, kwargs))
    return taken_for_integers(func, args, kwargs)


def taken_for_integers(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """Find tensors that stand where a torch function takes integers."""
    integers = integers_of(func)
    found = [args[position] for position in integers.positions if position < len(args)] + [*args[integers.further :]]
    if kwargs:
        found += [value for key, value in kwargs.items() if key in integers.names]
    return [tensor for tensor in tensors_in(found) if tensor.numel() == 1]


def within_a_check(frame: FrameType) -> bool:
    """Tell whether a frame, of torch's constraints, is part of one that a distribution checks."""
    while frame.f_back and frame.f_globals is CONSTRAINTS:
        frame = frame.f_back
    return module_name(frame).startswith("torch.distributions")


def called_by_a_distribution() -> bool:
    """Tell whether the torch function that is running was called within torch.distributions, to check an argument."""
    frame = caller(sys._getframe(1))
    while frame.f_back and module_name(frame).startswith("torch."):
        if module_name(frame).startswith("torch.distributions"):
            return True
        frame = frame.f_back
    return False


def caller(frame: FrameType) -> FrameType:
    """Find who called a torch function, from inside of this package."""
    while frame.f_back and module_name(frame).startswith(OURS):
        frame = frame.f_back
    return frame


def module_name(frame: FrameType) -> str:
    """Name of the module whose code runs in a frame."""
    return str(frame.f_globals.get("__name__"))


def tensors_in(value: Any) -> list[Tensor]:
    """Find the tensors in nested tuples, lists, sets, dicts and slices, and in tensors that wrap others."""
    found: list[Tensor] = []
    for part in value if type(value) is tuple else (value,):
        kind = type(part)
        if kind is Tensor:  # only for speed, as the next: arguments are mostly one or the other
            found.append(part)
        elif kind not in ATOMS:
            collect(part, found)
    return found


def collect(value: Any, found: list[Tensor]) -> None:
    """Add the tensors in a value to those found."""
    if isinstance(value, Tensor):
        found.append(value)
        if type(value) not in PLAIN:  # may be a mere wrapper of those that it keeps
            collect(vars(value), found)
    elif isinstance(value, COLLECTIONS):
        for part in value:
            collect(part, found)
    elif isinstance(value, dict):
        collect(tuple(value.values()), found)
    elif isinstance(value, slice):
        collect((value.start, value.stop, value.step), found)
