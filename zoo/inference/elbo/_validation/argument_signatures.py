"""How often programs ran with which kind of arguments: what another option switches on has not been checked."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import lru_cache, partial
from itertools import islice
from operator import attrgetter
from types import FunctionType, MethodType
from typing import Any

import numpy as np
from torch import nn

CAPACITY = 64
WIDTH = 32  # elements of a container that are looked at: options are few, data are many
SIZE = 128  # parts of arguments after which no more containers are looked into


class Passes:
    """Number of runs that programs have passed with arguments of a signature.

    Booleans, strings, None and members of enums count by value, functions by their code, modules by class and mode,
    containers and dataclasses by what they hold, and all else by type. As strings may be names of data, each of which
    is new, only a number of signatures are told apart by strings, then as many without them, and the rest are one. A
    copy is empty.

    Example:
        >>> passed = Passes()
        >>> passed.add(passed.signature_of(print, 1.0, {"fast": [True]}))
        >>> passed[passed.signature_of(print, 2.0, {"fast": [True]})]
        1
        >>> passed[passed.signature_of(print, 2.0, {"fast": [False]})]
        0
    """

    def __init__(self) -> None:
        self._counts: dict[Hashable, int] = {}

    def __reduce__(self) -> tuple[type["Passes"], tuple[()]]:
        return Passes, ()

    def __getitem__(self, signature: Hashable) -> int:
        return self._counts.get(signature, 0)

    def signature_of(self, *parts: Any) -> Hashable:
        """Return the signature of programs and arguments; None if there is room for no more."""
        for of_string, capacity in ((itself, CAPACITY), (type, 2 * CAPACITY)):
            signature = signature_of(parts, of_string)
            if signature in self._counts or len(self._counts) < capacity:
                return signature
        return None

    def add(self, signature: Hashable) -> None:
        """Count a run that was not refused."""
        self._counts[signature] = self[signature] + 1


def itself(part: Any) -> Hashable:
    """Return a string or a class."""
    return part


def signature_of(parts: Sequence[Any], of_string: Callable[[str], Hashable]) -> Hashable:
    """Return what tells programs and arguments from others of the same kinds.

    Args:
        parts: programs, arguments and containers of arguments.
        of_string: what tells one string from another.
    """
    found: list[Hashable] = []
    waiting = list(parts)
    for part in waiting:  # the outermost first, to which the contents of containers are added
        kind: Any = type(part)
        if kind is str:
            found.append(of_string(part))
            continue
        how = by_kind(kind)
        value = None if how is None else how(part)
        if type(value) is tuple:
            if len(waiting) < SIZE:
                waiting += value
            value = len(value)
        found.append(kind)
        found.append(value)
    return tuple(found)


@lru_cache(CAPACITY)
def by_kind(kind: type) -> Callable[[Any], Any] | None:
    """Return the function that finds what counts of arguments of a class, the parts of a container in a tuple."""
    if issubclass(kind, bool | np.bool_ | Enum | type):
        return itself
    if issubclass(kind, FunctionType):
        return attrgetter("__code__")
    if issubclass(kind, nn.Module):
        return attrgetter("training")
    if issubclass(kind, MethodType):
        return attrgetter("__func__", "__self__")
    if issubclass(kind, partial):
        return attrgetter("func", "args", "keywords")
    if issubclass(kind, Mapping):
        return lambda mapping: tuple(islice(mapping.items(), WIDTH))
    if issubclass(kind, tuple | list | set | frozenset):
        return lambda container: tuple(islice(container, WIDTH))
    if is_dataclass(kind):
        names = [field.name for field in fields(kind)]
        return lambda options: tuple(getattr(options, name, None) for name in names)
    return None
