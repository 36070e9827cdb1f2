"""Whether the context manager of a ``with`` statement may suppress an error, told from the code before it runs."""

import contextlib
import dis
import inspect
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import CodeType
from typing import Any, NamedTuple

# Libraries whose handlers and context managers let errors of values pass.
PASS_ON = ("torch", "pyro", "jaxtyping", "beartype")
STACKS = (contextlib.ExitStack, contextlib.AsyncExitStack)
LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_DEREF", "LOAD_CLOSURE")
LOADS_TWO = "LOAD_FAST_LOAD_FAST"  # of Python 3.13
ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD")
DATA_DESCRIPTORS = (types.MemberDescriptorType, type(vars(NamedTuple("_", [("field", int)]))["field"]))
"""Of slots and of the fields of named tuples: reading them runs no code."""
_harmless: set[type] = {types.ModuleType, types.NoneType}
"""Classes whose objects pass errors on, remembered as that is asked at each call within such a ``with``."""
Handles = Callable[[CodeType, dict[str, Any]], bool]
FARTHEST = 4  # functions that call one another, looked through for one that suppresses


class Expression(NamedTuple):
    """What a ``with`` statement enters, as far as it is made of names."""

    chains: tuple[tuple[str, ...], ...]
    """Names in it, each with the attributes that follow: ``self.plate``."""

    def has_any_of(self, names: Iterable[str]) -> bool:
        """Return whether one of these names is in it."""
        return not {chain[0] for chain in self.chains}.isdisjoint(names)

    def makes_a_stack(self, scopes: Sequence[Mapping[str, Any]]) -> bool:
        """Return whether it makes an ``ExitStack``, of which only its content tells."""
        return _is_stack(self._resolved(scopes))

    def _resolved(self, scopes: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Return what its names, and each of their attributes, stand for."""
        return [found for chain in self.chains for found in _resolve(chain, scopes)]

    def without_attributes(self) -> "Expression":
        """Return the names alone."""
        return Expression(tuple(chain[:1] for chain in self.chains))

    def may_suppress(self, scopes: Sequence[Mapping[str, Any]], handles: Handles) -> bool:
        """Return whether it may make a context manager that suppresses errors.

        Args:
            scopes: where its names are looked up, the innermost first.
            handles: see ``may_suppress``.
        """
        doubtful = [found for found in self._resolved(scopes) if _kind(found) not in _harmless]
        if not doubtful or (_is_stack(doubtful) and not _stacks_may_suppress(scopes[0], handles)):
            return False
        return any(may_suppress(found, handles) for found in doubtful)


def expression_before(instructions: list[dis.Instruction]) -> Expression:
    """Return what the last ``with`` among instructions enters."""
    entering = [i for i, instruction in enumerate(instructions) if instruction.opname == "BEFORE_WITH"]
    if not entering or (span := _span(instructions[entering[-1]])) is None:
        return Expression(())
    begin, end = span
    chains: list[tuple[str, ...]] = []
    follows = False
    for one in instructions[: entering[-1]]:
        inside = (at := _span(one)) is not None and begin <= at[0] <= end
        if inside and one.opname == LOADS_TWO:
            chains += [(str(name),) for name in one.argval]
        elif inside and one.opname in LOADS:
            chains.append((str(one.argval),))
        elif inside and follows and one.opname in ATTRIBUTES:
            chains[-1] += (str(one.argval),)
        follows = inside and one.opname in (LOADS_TWO, *LOADS, *ATTRIBUTES)
    return Expression(tuple(chains))


def _span(instruction: dis.Instruction) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Return the line and column where the expression of an instruction begins, and where it ends, if it has any."""
    place = instruction.positions
    if place is None or place.lineno is None or place.col_offset is None:
        return None
    return (place.lineno, place.col_offset), (place.end_lineno or 0, place.end_col_offset or 0)


def may_suppress(found: Any, handles: Handles, depth: int = FARTHEST) -> bool:
    """Return whether a context manager, or what a class or function makes, may suppress errors.

    What cannot be told passes them on: nearly all do, and plates, masks and handlers of effects fill every program.

    Args:
        found: a context manager, a class, or a function that returns one.
        handles: tells of a generator's code, with its globals, whether it handles errors.
        depth: how far to follow functions through the functions that they name.
    """
    if found is None or isinstance(found, types.ModuleType):
        return False
    if isinstance(found, types.FunctionType | types.MethodType):
        return _function_may_suppress(inspect.unwrap(found), handles, depth, decorated=hasattr(found, "__wrapped__"))
    if isinstance(found, contextlib._GeneratorContextManager):
        return _function_may_suppress(found.func, handles, depth, decorated=True)
    kind = _kind(found)
    if isinstance(found, STACKS):
        return any(_may_suppress_in_a_stack(leave, handles) for _, leave in found._exit_callbacks)  # type: ignore[union-attr]
    if issubclass(kind, (contextlib.suppress, *STACKS)):
        return True
    leave = inspect.getattr_static(kind, "__exit__", None)
    if leave is None:  # a module or another object to be called, which may make one
        calls = [inspect.getattr_static(kind, name, None) for name in ("forward", "__call__")]
        functions = [call for call in calls if isinstance(call, types.FunctionType)]
        if not functions:
            _harmless.add(kind)
        return any(_function_may_suppress(call, handles, depth, decorated=False) for call in functions)
    if not isinstance(leave, types.FunctionType) or _is_of_a_library(leave):
        _harmless.add(kind)
        return False
    return leave.__module__ != "contextlib" and _returns_something(leave.__code__)


def _stacks_may_suppress(variables: Mapping[str, Any], handles: Handles) -> bool:
    """Return whether a stack among variables holds what may suppress errors; True if there is no stack."""
    stacks = [value for value in variables.values() if isinstance(value, STACKS)]
    return not stacks or any(may_suppress(stack, handles) for stack in stacks)


def _may_suppress_in_a_stack(leave: Any, handles: Handles) -> bool:
    """Return whether a callback of an ``ExitStack`` may suppress errors."""
    if isinstance(leave, types.MethodType):  # the __exit__ of a context manager
        return may_suppress(leave.__self__, handles)
    return not hasattr(leave, "__wrapped__")  # which those of ``callback`` have, whose results are dropped


def _kind(found: Any) -> Any:
    return found if isinstance(found, type) else type(found)


def _is_stack(found: Iterable[Any]) -> bool:
    return any(each in STACKS for each in found if isinstance(each, type))


def _function_may_suppress(function: Any, handles: Handles, depth: int, decorated: bool) -> bool:
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType) or _is_of_a_library(function) or depth == 0:
        return False
    if decorated and handles(code, function.__globals__):  # around its yield
        return True
    named = [function.__globals__.get(name) for name in code.co_names]
    if any(part is contextlib for part in named):
        named += [getattr(contextlib, name, None) for name in code.co_names]
    managers = [part for part in named if isinstance(part, type | types.FunctionType)]
    return any(part is not function and may_suppress(part, handles, depth - 1) for part in managers)


def _returns_something(code: CodeType) -> bool:
    """Return whether a function may return anything but None and False."""
    before: dis.Instruction | None = None
    for instruction in dis.get_instructions(code):
        if instruction.opname == "RETURN_CONST" and instruction.argval:
            return True
        constant = before is not None and before.opname == "LOAD_CONST" and not before.argval
        if instruction.opname == "RETURN_VALUE" and not constant:
            return True
        before = instruction
    return False


def _is_of_a_library(function: Any) -> bool:
    return str(getattr(function, "__module__", None)).partition(".")[0] in PASS_ON


def _resolve(chain: tuple[str, ...], scopes: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return what a name and then each of its attributes stands for, as far as can be told without running code."""
    name, *attributes = chain
    found = None
    for scope in scopes:
        if name in scope:
            found = scope[name]
            break
    resolved = [found]
    for name in attributes:
        if isinstance(found, types.ModuleType):
            found = vars(found).get(name)
        else:
            held = inspect.getattr_static(found, name, None)
            found = getattr(found, name) if isinstance(held, DATA_DESCRIPTORS) else held
        resolved.append(found)
    return resolved
