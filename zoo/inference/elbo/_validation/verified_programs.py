import functools
import inspect
import weakref
from collections.abc import Callable, Hashable
from types import CellType, MethodType
from typing import Any

CAPACITY = 256


class Programs:
    """Set of pairs of programs, which does not keep what they refer to alive.

    A function that is made anew, as a lambda in a loop, is the same program if it has the same code and its closure
    holds the same objects, equal integers and strings, and tensors, arrays and floats of whatever values, being data.
    The oldest are forgotten beyond a capacity. A copy is empty.

    Example:
        >>> def make(x):
        ...     return lambda: x
        >>> programs = Programs()
        >>> programs.add(make(1), make)
        >>> (make(1), make) in programs, (make(2), make) in programs
        (True, False)
    """

    def __init__(self) -> None:
        self._keys: dict[Hashable, None] = {}

    def __contains__(self, pair: tuple[Callable[..., Any], Callable[..., Any]]) -> bool:
        return key_of(pair) in self._keys

    def __reduce__(self) -> tuple[type["Programs"], tuple[()]]:
        return Programs, ()

    def add(self, model: Callable[..., Any], guide: Callable[..., Any]) -> None:
        """Add a pair."""
        self._keys[key_of((model, guide))] = None
        if len(self._keys) > CAPACITY:
            del self._keys[next(iter(self._keys))]


class _Same:
    """Compares equal to a reference to the same object, as long as that is alive."""

    def __init__(self, referent: object):
        self.hash = id(referent)
        try:
            self.get: Callable[[], object] = weakref.ref(referent)
        except TypeError:  # as of a dictionary
            self.get = lambda: referent

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, _Same) and self.get() is not None and self.get() is other.get())


def key_of(part: Any, above: tuple[int, ...] = ()) -> Hashable:
    """Return what identifies a program, or a part of one; what it refers to above is not followed again."""
    if id(part) in above:
        return above.index(id(part))
    above = (*above, id(part))
    if part is None or isinstance(part, bool | int | str | bytes | type):
        return type(part), part
    if isinstance(part, float) or hasattr(type(part), "__array__"):
        return (type(part),)
    if isinstance(part, tuple | list):
        return type(part), *(key_of(each, above) for each in part)
    if inspect.isfunction(part):
        held = [part.__defaults__, *(part.__kwdefaults__ or {}).items(), *map(contents, part.__closure__ or ())]
        return _Same(part.__code__), _Same(part.__globals__), key_of(held, above)
    if isinstance(part, MethodType):
        return key_of(part.__self__, above), key_of(part.__func__, above)
    if isinstance(part, functools.partial):
        return key_of([part.func, part.args, *part.keywords.items()], above)
    return _Same(part)


def contents(cell: CellType) -> Any:
    """Return what a variable of a closure holds; None where it was not assigned yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None
