"""Programs and kinds of arguments that were checked before."""

import functools
import inspect
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from itertools import islice
from operator import attrgetter
from types import CellType, FunctionType, MethodType
from typing import Any

import numpy as np
from torch import nn

MAX_VERIFIED_PROGRAMS = 256
MAX_SIGNATURES = 64
MAX_CONTAINER_ITEMS = 32  # considered per container: options are few, data are many
MAX_PARTS = 128  # parts of arguments beyond which containers are not opened


class VerifiedPrograms:
    """Set of pairs of model and guide, by reference.

    Objects are compared by identity and referred to weakly where possible, since a freed object's ``id`` may be reused
    by another. Functions created anew are equal if they have the same code and their closures hold the same objects,
    integers and strings; tensors, arrays and floats are data, and only their types are compared. The oldest pairs
    beyond a maximum are removed. A copy is empty.
    """

    def __init__(self) -> None:
        self._keys: dict[Hashable, None] = {}

    def __contains__(self, pair: tuple[Callable[..., Any], Callable[..., Any]]) -> bool:
        return program_key(pair) in self._keys

    def __reduce__(self) -> tuple[type["VerifiedPrograms"], tuple[()]]:
        return VerifiedPrograms, ()

    def add(self, model: Callable[..., Any], guide: Callable[..., Any]) -> None:
        self._keys[program_key((model, guide))] = None
        if len(self._keys) > MAX_VERIFIED_PROGRAMS:
            del self._keys[next(iter(self._keys))]


class _Reference:
    """Equal to a reference to the same object, as long as it is alive."""

    def __init__(self, referent: object):
        self.hash = id(referent)
        try:
            self.get: Callable[[], object] = weakref.ref(referent)
        except TypeError:  # not weakly referenceable, for example a dictionary
            self.get = lambda: referent

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, _Reference) and self.get() is not None and self.get() is other.get())


def program_key(part: Any, parents: tuple[int, ...] = ()) -> Hashable:
    """Return a key of a program, or of a part of one; references to parents are not followed again."""
    if id(part) in parents:
        return parents.index(id(part))
    parents = (*parents, id(part))
    if part is None or isinstance(part, bool | int | str | bytes | type):
        return type(part), part
    if isinstance(part, float) or hasattr(type(part), "__array__"):
        return (type(part),)
    if isinstance(part, tuple | list):
        return type(part), *(program_key(each, parents) for each in part)
    if inspect.isfunction(part):
        contents = [part.__defaults__, *(part.__kwdefaults__ or {}).items(), *map(_contents, part.__closure__ or ())]
        return _Reference(part.__code__), _Reference(part.__globals__), program_key(contents, parents)
    if isinstance(part, MethodType):
        return program_key(part.__self__, parents), program_key(part.__func__, parents)
    if isinstance(part, functools.partial):
        return program_key([part.func, part.args, *part.keywords.items()], parents)
    return _Reference(part)


def _contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


class RunCounts:
    """Number of successful runs for each signature of programs and arguments.

    Booleans, strings, None and enum members count by value, functions by code, modules by class and mode, containers
    and dataclasses by their contents, everything else by type. Strings may be names of data and differ in every run.
    Therefore only the first ``MAX_SIGNATURES`` signatures distinguish strings by value, as many more by type, and all
    further ones are counted as one. A copy is empty.
    """

    def __init__(self) -> None:
        self._counts: dict[Hashable, int] = {}

    def __reduce__(self) -> tuple[type["RunCounts"], tuple[()]]:
        return RunCounts, ()

    def __getitem__(self, signature: Hashable) -> int:
        return self._counts.get(signature, 0)

    def signature(self, *parts: Any) -> Hashable:
        """Return the signature of programs and arguments; None if the maximum number is reached."""
        for string_key, capacity in ((_identity, MAX_SIGNATURES), (type, 2 * MAX_SIGNATURES)):
            signature = _signature(parts, string_key)
            if signature in self._counts or len(self._counts) < capacity:
                return signature
        return None

    def add(self, signature: Hashable) -> None:
        self._counts[signature] = self[signature] + 1


def _identity(part: Any) -> Hashable:
    return part


def _signature(parts: Sequence[Any], string_key: Callable[[str], Hashable]) -> Hashable:
    found: list[Hashable] = []
    queue = list(parts)
    for part in queue:  # breadth first: the contents of containers are appended
        kind: Any = type(part)
        if kind is str:
            found.append(string_key(part))
            continue
        extract = _extractor(kind)
        value = None if extract is None else extract(part)
        if type(value) is tuple:
            if len(queue) < MAX_PARTS:
                queue += value
            value = len(value)
        found.append(kind)
        found.append(value)
    return tuple(found)


@functools.lru_cache(MAX_SIGNATURES)
def _extractor(kind: type) -> Callable[[Any], Any] | None:
    """Return the function that maps an argument of a class to what distinguishes it: a value, or a tuple of parts."""
    if issubclass(kind, bool | np.bool_ | Enum | type):
        return _identity
    if issubclass(kind, FunctionType):
        return attrgetter("__code__")
    if issubclass(kind, nn.Module):
        return attrgetter("training")
    if issubclass(kind, MethodType):
        return attrgetter("__func__", "__self__")
    if issubclass(kind, functools.partial):
        return attrgetter("func", "args", "keywords")
    if issubclass(kind, Mapping):
        return lambda mapping: tuple(islice(mapping.items(), MAX_CONTAINER_ITEMS))
    if issubclass(kind, tuple | list | set | frozenset):
        return lambda container: tuple(islice(container, MAX_CONTAINER_ITEMS))
    if is_dataclass(kind):
        names = [field.name for field in fields(kind)]
        return lambda options: tuple(getattr(options, name, None) for name in names)
    return None
