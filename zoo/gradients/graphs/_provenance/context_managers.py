"""Whether the context manager of a ``with`` statement may suppress an error, told from the code before it runs."""

import contextlib
import dis
import functools
import inspect
import itertools
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import CodeType
from typing import Any, NamedTuple

import torch

# Libraries whose handlers and context managers let errors of values pass.
PASS_ON = ("torch", "pyro", "jaxtyping", "beartype")
STACKS = (contextlib.ExitStack, contextlib.AsyncExitStack)
LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_DEREF", "LOAD_CLOSURE")
LOADS_TWO = "LOAD_FAST_LOAD_FAST"  # of Python 3.13
ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD")
DATA_DESCRIPTORS = (types.MemberDescriptorType, type(vars(NamedTuple("_", [("field", int)]))["field"]))
"""Of slots and of the fields of named tuples: reading them runs no code."""
CALLS = ("CALL", "CALL_KW", "CALL_FUNCTION_EX")
CALL, ITEM = "()", "[]"
UNKNOWN = object()
RETURN_GUARDS = ("open", "allocate_lock", "RLock")  # functions in C whose results suppress nothing
_harmless: set[type] = {types.ModuleType, types.NoneType}
"""Classes whose objects pass errors on, remembered as that is asked at each call within such a ``with``."""
Handles = Callable[[CodeType, dict[str, Any]], bool]
FARTHEST = 4  # functions that call one another, looked through for one that suppresses


class Expression(NamedTuple):
    """What a ``with`` statement enters, as far as it is made of names."""

    chains: tuple[tuple[str, ...], ...]
    """Names in it, each with the attributes that follow: ``self.plate``."""
    steps: tuple[str, ...] = ()
    """How the context manager is found: a name, then its attributes, ``CALL`` and ``ITEM``; empty if otherwise."""

    def has_any_of(self, names: Iterable[str]) -> bool:
        """Return whether one of these names is in it."""
        return not {chain[0] for chain in self.chains}.isdisjoint(names)

    def makes_a_stack(self, scopes: Sequence[Mapping[str, Any]]) -> bool:
        """Return whether it makes an ``ExitStack``, of which only its content tells."""
        return _is_stack(self._resolved(scopes))

    def varies(self, scopes: Sequence[Mapping[str, Any]]) -> bool:
        """Return whether it reads an object, which may hold another context manager each time."""
        return bool({*self.steps[1:]} - {CALL}) and not isinstance(_lookup(self.steps[0], scopes), types.ModuleType)

    def _is_unknown(self, scopes: Sequence[Mapping[str, Any]]) -> bool:
        """Return whether code would have to run to tell what it enters."""
        if not self.steps:
            return False
        found = [_lookup(self.steps[0], scopes)]
        *steps, last = self.steps[1:] or ("",)
        if last:
            for step in steps if last == CALL else (*steps, last):
                found = [each for one in found for each in _follow(one, step)]
            if last == CALL:
                return not found or any(map(_returns_unknown, found))
        return not found or any(one is UNKNOWN for one in found)

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
        if self._is_unknown(scopes):
            return True
        entered = [found for found in self._entered(scopes) if not _is_stack([found])] if self.steps[1:] else []
        return any(may_suppress(found, handles) for found in entered) or self._names_may_suppress(scopes, handles)

    def _entered(self, scopes: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Return the context managers, or what is called for one."""
        found = [_lookup(self.steps[0], scopes)]
        for step in self.steps[1:]:
            if step == CALL:
                found = [one.func if isinstance(one, functools.partial) else one for one in found]
            else:
                found = [each for one in found for each in _follow(one, step)]
        return found

    def _names_may_suppress(self, scopes: Sequence[Mapping[str, Any]], handles: Handles) -> bool:
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
    return Expression(tuple(chains), _steps([one for one in instructions[: entering[-1]] if one.opname != "CACHE"]))


def _steps(instructions: list[dis.Instruction]) -> tuple[str, ...]:
    """Return how the value that the last instruction leaves is found; a name that nothing has where it is not a name's.

    All instructions of ``a.b(c)[d]`` but those of its arguments begin where it begins.
    """
    if not instructions or (span := _span(instructions[-1])) is None:
        return ("",)
    steps: list[str] = []
    for one in instructions:
        if (at := _span(one)) is not None and at[0] == span[0] and (step := _step(one)):
            if one.opname in LOADS:
                steps = []  # `finally` repeats what stands in it
            elif not steps:
                steps.append("")
            steps.append(step)
    return tuple(steps) or ("",)


def _step(instruction: dis.Instruction) -> str | None:
    if instruction.opname in (*LOADS, *ATTRIBUTES):
        return str(instruction.argval)
    if instruction.opname.startswith("BINARY_SUBSCR"):
        return ITEM
    return CALL if instruction.opname in CALLS else None


def _span(instruction: dis.Instruction) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Return the line and column where the expression of an instruction begins, and where it ends, if it has any."""
    place = instruction.positions
    if place is None or place.lineno is None or place.col_offset is None:
        return None
    return (place.lineno, place.col_offset), (place.end_lineno or 0, place.end_col_offset or 0)


def may_suppress(found: Any, handles: Handles, depth: int = FARTHEST) -> bool:
    """Return whether a context manager, or what a class or function makes, may suppress errors.

    What a library for probabilistic programs makes passes them on, as plates, masks and handlers of effects do.

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


def _lookup(name: str, scopes: Sequence[Mapping[str, Any]]) -> Any:
    return next((scope[name] for scope in scopes if name in scope), UNKNOWN)


def _follow(found: Any, step: str) -> list[Any]:
    """Return what an attribute or the items of an object are; ``UNKNOWN`` where code would have to run."""
    if found is UNKNOWN or step == CALL:
        return [UNKNOWN]
    if step == ITEM:
        if type(found) is dict:
            return list(found.values())
        return list(found) if type(found) in (list, tuple) else [UNKNOWN]
    if isinstance(found, types.ModuleType):
        return [vars(found).get(step, UNKNOWN)]
    if isinstance(found, torch.nn.Module) and step in found._modules:
        return [found._modules[step]]
    held = inspect.getattr_static(found, step, UNKNOWN)
    if isinstance(held, DATA_DESCRIPTORS):
        return [getattr(found, step)]
    if isinstance(held, staticmethod | classmethod):
        return [held.__func__]
    if isinstance(held, property) and held.fget is not None:  # judged as a function that makes one
        return [UNKNOWN if _returns_unknown(held.fget) else held.fget]
    runs = hasattr(type(held), "__get__") and not isinstance(held, types.FunctionType | type)
    return [UNKNOWN if runs and step not in getattr(found, "__dict__", ()) else held]


def _returns_unknown(function: Any) -> bool:
    """Return whether it cannot be told what a function makes."""
    if isinstance(function, functools.partial):
        return _returns_unknown(function.func)
    if isinstance(function, types.BuiltinFunctionType):
        return function.__name__ not in RETURN_GUARDS and not _is_of_a_library(function)
    if isinstance(function, types.FunctionType) and not _is_of_a_library(function) and _reads_objects(function):
        return True
    return function is UNKNOWN


def _reads_objects(function: types.FunctionType) -> bool:
    """Return whether a function returns an attribute, or an item, of something."""
    instructions = [one for one in dis.get_instructions(function) if one.opname != "CACHE"]
    return any(
        then.opname == "RETURN_VALUE" and (before.opname in ATTRIBUTES or before.opname.startswith("BINARY_SUBSCR"))
        for before, then in itertools.pairwise(instructions)
    )
