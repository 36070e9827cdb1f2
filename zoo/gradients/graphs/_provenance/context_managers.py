"""Whether the context manager of a ``with`` statement may suppress an error, decided from its code before it runs."""

import contextlib
import dis
import functools
import inspect
import itertools
import types
from collections.abc import Callable, Mapping, Sequence
from types import CodeType
from typing import Any, NamedTuple

import torch

# Libraries whose exception handlers and context managers suppress no errors that depend on values.
TRANSPARENT_LIBRARIES = ("torch", "pyro", "jaxtyping", "beartype")
_STACKS = (contextlib.ExitStack, contextlib.AsyncExitStack)
_LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_DEREF", "LOAD_CLOSURE")
_LOADS_TWO = "LOAD_FAST_LOAD_FAST"  # of Python 3.13
_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD")
_CALLS = ("CALL", "CALL_KW", "CALL_FUNCTION_EX")
_CALL, _ITEM = "()", "[]"
# Descriptors of slots and of fields of named tuples, which run no Python code when they are read.
_DATA_DESCRIPTORS = (types.MemberDescriptorType, type(vars(NamedTuple("_", [("field", int)]))["field"]))
_UNKNOWN = object()
_LOCKS_AND_FILES = ("open", "allocate_lock", "RLock")  # functions in C whose results suppress nothing
_MAX_DEPTH = 4  # nested calls that are searched for a context manager that suppresses errors
# Cache of classes whose objects suppress no errors, since they are looked up at each torch call inside a ``with``.
_never_suppressing: set[type] = {types.ModuleType, types.NoneType}
Scopes = Sequence[Mapping[str, Any]]
Handles = Callable[[CodeType, dict[str, Any]], bool]
"""Returns whether a generator's code, with its globals, handles errors."""


class _ResultOf(NamedTuple):
    function: Any


class WithExpression(NamedTuple):
    """The expression of a ``with`` statement, as far as it is made of names, attributes, calls and items.

    An analysis of the expression's value would be exact, but needs to run code. This one follows names to objects and
    attributes without running any, and assumes that whatever it cannot follow suppresses errors. That is safe: more
    values than necessary then influence what follows, which costs variance, but no bias.
    """

    chains: tuple[tuple[str, ...], ...] = ()
    """Each name in it with the attributes that follow: ``self.plate``."""
    steps: tuple[str, ...] = ()
    """Path to the context manager: a name, then attributes, ``_CALL`` and ``_ITEM``; the name is empty if unknown."""

    def is_constant(self, local: set[str], scopes: Scopes) -> bool:
        """Return whether its value never changes.

        It reads no local variable, no attribute or item except of modules, and opens no ``ExitStack``.
        """
        found = [_follow_path(chain, scopes) for chain in self.chains]
        ((root,),) = _follow_path(self.steps[:1] or ("",), scopes)
        reads_object = bool({*self.steps[1:]} - {_CALL}) and not isinstance(root, types.ModuleType)
        opens_stack = any(_is_stack_class(one) for chain in found for step in chain for one in step)
        return local.isdisjoint(chain[0] for chain in self.chains) and not reads_object and not opens_stack

    def may_suppress(self, scopes: Scopes, handles: Handles) -> bool:
        """Return whether it may evaluate to a context manager that suppresses errors.

        Names are looked up in ``scopes``, the innermost first. All objects that they refer to are checked, too: a call
        may return its argument, and ``a if condition else b`` is either.
        """
        *_, managers = _follow_path(self.steps, scopes) if self.steps else ([None],)
        if not managers or any(one is _UNKNOWN for one in managers):
            return True
        found = [one.function if isinstance(one, _ResultOf) else one for one in managers]
        found += [each for chain in self.chains for step in _follow_path(chain, scopes) for each in step]
        variables = list(scopes[0].values()) if any(map(_is_stack_class, found)) else []
        stacks = [value for value in variables if isinstance(value, _STACKS)]
        # Instead of the class ``ExitStack``, its instances among the variables are checked, if there are any.
        checked = [one for one in found if not (stacks and _is_stack_class(one))] + stacks
        return any(one is not _UNKNOWN and may_suppress(one, handles) for one in checked)


def _is_stack_class(found: Any) -> bool:
    return isinstance(found, type) and found in _STACKS


def last_with(instructions: list[dis.Instruction]) -> WithExpression:
    """Return the expression of the last ``with`` among instructions."""
    entering = [i for i, instruction in enumerate(instructions) if instruction.opname == "BEFORE_WITH"]
    if not entering or (span := _span(instructions[entering[-1]])) is None:
        return WithExpression()
    begin, end = span
    chains: list[tuple[str, ...]] = []
    follows = False
    for one in instructions[: entering[-1]]:
        inside = (at := _span(one)) is not None and begin <= at[0] <= end
        if inside and one.opname == _LOADS_TWO:
            chains += [(str(name),) for name in one.argval]
        elif inside and one.opname in _LOADS:
            chains.append((str(one.argval),))
        elif inside and follows and one.opname in _ATTRIBUTES:
            chains[-1] += (str(one.argval),)
        follows = inside and one.opname in (_LOADS_TWO, *_LOADS, *_ATTRIBUTES)
    return WithExpression(tuple(chains), _steps([one for one in instructions[: entering[-1]] if one.opname != "CACHE"]))


def _steps(instructions: list[dis.Instruction]) -> tuple[str, ...]:
    """Return the path to the value of the last instruction.

    All instructions of ``a.b(c)[d]``, except those of its arguments, begin at the same place in the source.
    """
    if not instructions or (span := _span(instructions[-1])) is None:
        return ("",)
    steps: list[str] = []
    for one in instructions:
        if (at := _span(one)) is not None and at[0] == span[0] and (step := _step(one)):
            if one.opname in _LOADS:
                steps = []  # drops an earlier copy: the compiler duplicates the code of ``finally``
            elif not steps:
                steps.append("")
            steps.append(step)
    return tuple(steps) or ("",)


def _step(instruction: dis.Instruction) -> str | None:
    if instruction.opname in (*_LOADS, *_ATTRIBUTES):
        return str(instruction.argval)
    if instruction.opname.startswith("BINARY_SUBSCR"):
        return _ITEM
    return _CALL if instruction.opname in _CALLS else None


def _span(instruction: dis.Instruction) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Return where the source of an instruction begins and ends, as line and column."""
    place = instruction.positions
    if place is None or place.lineno is None or place.col_offset is None:
        return None
    return (place.lineno, place.col_offset), (place.end_lineno or 0, place.end_col_offset or 0)


def _follow_path(path: tuple[str, ...], scopes: Scopes) -> list[list[Any]]:
    """Return the objects that a name and then each step may refer to."""
    found = [[next((scope[path[0]] for scope in scopes if path[0] in scope), _UNKNOWN)]]
    for step in path[1:]:
        found.append([each for one in found[-1] for each in _follow(one, step)])
    return found


def _follow(found: Any, step: str) -> list[Any]:
    """Return the objects that a step from an object may lead to, without running code."""
    if found is _UNKNOWN or isinstance(found, _ResultOf):
        return [_UNKNOWN]
    if step == _CALL:
        function = found.func if isinstance(found, functools.partial) else found
        return [_UNKNOWN if _returns_unknown(function) else _ResultOf(function)]
    if step == _ITEM:
        if type(found) is dict:
            return list(found.values())
        return list(found) if type(found) in (list, tuple) else [_UNKNOWN]
    if isinstance(found, types.ModuleType):
        return [vars(found).get(step, _UNKNOWN)]
    if isinstance(found, torch.nn.Module) and step in found._modules:
        return [found._modules[step]]
    attribute = inspect.getattr_static(found, step, _UNKNOWN)
    if isinstance(attribute, _DATA_DESCRIPTORS):
        return [getattr(found, step)]
    if isinstance(attribute, staticmethod | classmethod):
        return [attribute.__func__]
    if isinstance(attribute, property) and attribute.fget is not None:
        return [_UNKNOWN if _returns_unknown(attribute.fget) else _ResultOf(attribute.fget)]
    runs_code = hasattr(type(attribute), "__get__") and not isinstance(attribute, types.FunctionType | type)
    return [_UNKNOWN if runs_code and step not in getattr(found, "__dict__", ()) else attribute]


def _returns_unknown(function: Any) -> bool:
    """Return whether a function's result cannot be followed: it is written in C, or returns an attribute or an item."""
    if _is_of_library(function):
        return False
    if isinstance(function, types.BuiltinFunctionType):
        return function.__name__ not in _LOCKS_AND_FILES
    if not isinstance(function, types.FunctionType):
        return False
    instructions = [one for one in dis.get_instructions(function) if one.opname != "CACHE"]
    return any(
        then.opname == "RETURN_VALUE" and (before.opname in _ATTRIBUTES or before.opname.startswith("BINARY_SUBSCR"))
        for before, then in itertools.pairwise(instructions)
    )


def may_suppress(found: Any, handles: Handles, depth: int = _MAX_DEPTH) -> bool:
    """Return whether a context manager, or what a class or function returns, may suppress errors.

    Those of ``TRANSPARENT_LIBRARIES`` do not: plates, masks and effect handlers let errors pass. All functions and
    classes whose names occur in a function are checked, too, up to ``depth`` calls away.
    """
    cls = found if isinstance(found, type) else type(found)
    if cls in _never_suppressing:
        return False
    if isinstance(found, _ResultOf):
        return may_suppress(found.function, handles, depth)
    if isinstance(found, types.FunctionType | types.MethodType):
        return _function_may_suppress(inspect.unwrap(found), handles, depth, decorated=hasattr(found, "__wrapped__"))
    if isinstance(found, contextlib._GeneratorContextManager):
        return _function_may_suppress(found.func, handles, depth, decorated=True)
    if isinstance(found, _STACKS):
        exits = [exit_method for _, exit_method in found._exit_callbacks]  # type: ignore[union-attr]
        # Methods are the __exit__ of a context manager. Functions come from ``push``, and may suppress errors; or from
        # ``callback``, which sets __wrapped__ and ignores their results.
        return any(
            may_suppress(exit_method.__self__, handles)
            if isinstance(exit_method, types.MethodType)
            else not hasattr(exit_method, "__wrapped__")
            for exit_method in exits
        )
    if issubclass(cls, (contextlib.suppress, *_STACKS)):
        return True
    exit_method = inspect.getattr_static(cls, "__exit__", None)
    if exit_method is None:  # a module or another callable, which may return one
        calls = [inspect.getattr_static(cls, name, None) for name in ("forward", "__call__")]
        functions = [call for call in calls if isinstance(call, types.FunctionType)]
        if not functions:
            _never_suppressing.add(cls)
        return any(_function_may_suppress(call, handles, depth, decorated=False) for call in functions)
    if not isinstance(exit_method, types.FunctionType) or _is_of_library(exit_method):
        _never_suppressing.add(cls)
        return False
    return exit_method.__module__ != "contextlib" and _returns_truth(exit_method.__code__)


def _function_may_suppress(function: Any, handles: Handles, depth: int, decorated: bool) -> bool:
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType) or _is_of_library(function) or depth == 0:
        return False
    if decorated and handles(code, function.__globals__):  # around the yield of a context manager's generator
        return True
    named = [function.__globals__.get(name) for name in code.co_names]
    if any(part is contextlib for part in named):
        named += [getattr(contextlib, name, None) for name in code.co_names]
    managers = [part for part in named if isinstance(part, type | types.FunctionType)]
    return any(part is not function and may_suppress(part, handles, depth - 1) for part in managers)


def _returns_truth(code: CodeType) -> bool:
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


def _is_of_library(function: Any) -> bool:
    return str(getattr(function, "__module__", None)).partition(".")[0] in TRANSPARENT_LIBRARIES
