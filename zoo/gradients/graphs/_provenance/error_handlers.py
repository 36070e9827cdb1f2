"""Decides whether a program would continue if a torch function raised an error.

The call is inside of ``try`` with an ``except``, or inside of ``with`` and the context manager suppresses errors. This
is read from the bytecode of the program; none of it is run. For a ``with`` statement, the names in its expression are
resolved to objects, the attributes of these, and the values that functions return. A context manager that cannot be
resolved is assumed to suppress errors. This is safe: more values than necessary then count as influencing what follows,
which increases the variance of the gradient but does not bias it.
"""

import builtins
import contextlib
import dis
import functools
import inspect
import types
from collections.abc import Mapping, Sequence
from types import CodeType, FrameType, FunctionType
from typing import Any, NamedTuple

import torch

_THREADS = "zoo.gradients.graphs._provenance.threads"  # an error ends the thread, and the program continues
_TYPE_CHECKERS = ("jaxtyping", "beartype")
_INTERNAL_MODULES = ("zoo.gradients.graphs._provenance", *_TYPE_CHECKERS)
_INTERPRETERS = ("zoo.gradients.graphs", "zoo.inference.elbo")  # packages that run programs
# Opcodes of a handler that may end without raising the error again.
_CATCHES = {"CHECK_EXC_MATCH", "CHECK_EG_MATCH", "POP_EXCEPT", "RETURN_VALUE", "RETURN_CONST"}
# Libraries whose exception handlers and context managers suppress no errors that depend on values.
_TRANSPARENT_LIBRARIES = ("torch", "pyro", "jaxtyping", "beartype")
# Opcodes that load the values of names, read attributes, and call functions.
_LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_DEREF", "LOAD_CLOSURE")
_LOADS_TWO = "LOAD_FAST_LOAD_FAST"  # of Python 3.13
_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD")
_CALLS = ("CALL", "CALL_KW", "CALL_FUNCTION_EX")
_UNNAMED_VALUES = ("MAKE_FUNCTION", "YIELD_VALUE")  # opcodes that produce values without a name
_PREPARE_CALLS = ("PUSH_NULL", "PRECALL", "KW_NAMES")
# Descriptors of slots and of fields of named tuples, which run no Python code when they are read.
_DATA_DESCRIPTORS = (types.MemberDescriptorType, type(vars(NamedTuple("_", [("field", int)]))["field"]))
_LOCKS_AND_FILES = ("open", "allocate_lock", "RLock")  # functions in C whose results suppress nothing
_CONTEXTMANAGER_CODE = contextlib.contextmanager(iter).__code__  # code of every function decorated with it
# Types of arguments that are no context managers.
_WITHOUT_EXIT = (types.ModuleType, types.NoneType, str, int, float, bool)
_UNKNOWN = object()
_MAX_DEPTH = 4  # nested functions whose return values are resolved
_Scopes = Sequence[Mapping[str, Any]]


class _Expression(NamedTuple):
    """The names and attributes in the expression of a ``with`` or ``return`` statement; none if it has other parts."""

    chains: tuple[tuple[str, ...], ...] = ()
    """Each name with the attributes that follow it: ``("self", "plate")``."""
    calls_first: bool = False
    """Whether the expression is a call of the first chain, as ``pyro.plate("data", size)``."""

    def may_suppress(self, scopes: _Scopes, depth: int = _MAX_DEPTH) -> bool:
        """Return whether the expression may evaluate to a context manager that suppresses errors.

        Names are looked up in ``scopes``, the innermost first. All objects in the expression are checked: a function
        may return one of its arguments, and ``a if condition else b`` may be either.
        """
        objects = [_resolve(chain, scopes) for chain in self.chains] or [_UNKNOWN]
        if self.calls_first and (
            isinstance(objects[0], type) or str(getattr(objects[0], "__module__", None)).startswith("pyro.")
        ):
            objects = objects[:1]  # classes and functions of Pyro return a new object, none of their arguments
        # Whether an ExitStack suppresses errors depends on its contents: the stacks in local variables are checked.
        if any(each is contextlib.ExitStack for each in objects):
            stacks = [value for value in scopes[0].values() if isinstance(value, contextlib.ExitStack)]
            objects = [each for each in objects if not (stacks and each is contextlib.ExitStack)] + stacks
        return any(_may_suppress(each, depth) for each in objects)


class _Range(NamedTuple):
    """Range of bytecode offsets in which errors may be handled."""

    start: int
    stop: int
    manager: _Expression | None = None
    """The context manager of a ``with`` statement, which may suppress errors; None for ``except``."""


class _Function(NamedTuple):
    """Code of a function, and the ranges in which it handles errors."""

    code: CodeType  # kept, so that its id is not reused
    ranges: tuple[_Range, ...] = ()
    is_program: bool = False
    """Whether it is code of the program or of a library: the search ends at the interpreter that called such code."""
    is_interpreter: bool = False


_functions: dict[int, _Function] = {}
"""By id of the code, since hashing a code object is slow."""


def error_is_handled(frame: FrameType | None) -> bool:
    """Return whether the program would continue if the torch function that a frame calls raised an error.

    The frames of its callers are searched, too, up to that of the interpreter. ``finally`` handles no error.
    """
    in_program = False
    while frame is not None:
        function = _functions.get(id(frame.f_code))
        if function is None:
            function = _functions[id(frame.f_code)] = _analyze(frame.f_code, frame.f_globals)
        if function.is_interpreter and in_program:
            return False
        for start, stop, manager in function.ranges:
            if start <= frame.f_lasti < stop and (
                manager is None or manager.may_suppress((frame.f_locals, frame.f_globals, frame.f_builtins))
            ):
                return True
        in_program = in_program or function.is_program
        frame = frame.f_back
    return False


def _analyze(code: CodeType, namespace: dict[str, Any]) -> _Function:
    module = str(namespace.get("__name__"))
    if module == _THREADS:
        return _Function(code, (_Range(0, len(code.co_code)),))
    # Frames of type checkers and of the tracker lie between frames of an interpreter, and between those of a program.
    if module.startswith(_INTERNAL_MODULES):
        return _Function(code)
    if module.startswith(_INTERPRETERS):
        return _Function(code, is_interpreter=True)
    if module.partition(".")[0] in _TRANSPARENT_LIBRARIES:
        return _Function(code, is_program=True)
    ranges = _handled_ranges(code)
    if module == "contextlib":
        if code.co_name in ("__enter__", "__exit__"):  # these handle only StopIteration
            return _Function(code, is_program=True)
        # A context manager used as a decorator enters self._recreate_cm(), which is equivalent to self.
        ranges = [one._replace(manager=_Expression((("self",),))) if one.manager else one for one in ranges]
    return _Function(code, tuple(ranges), is_program=True)


def _handles_errors(code: CodeType, namespace: dict[str, Any]) -> bool:
    """Return whether any part of a function may handle errors; its local variables are unknown."""
    scopes: _Scopes = ({}, namespace, vars(builtins))
    return any(one.manager is None or one.manager.may_suppress(scopes) for one in _handled_ranges(code))


@functools.cache
def _handled_ranges(code: CodeType) -> list[_Range]:
    """Return the ranges of the ``try`` statements that may catch errors, and of all ``with`` statements."""
    if not code.co_exceptiontable:
        return []
    bytecode = dis.Bytecode(code)
    instructions = list(bytecode)
    position = {instruction.offset: i for i, instruction in enumerate(instructions)}
    ranges = []
    for entry in bytecode.exception_entries:  # type: ignore[attr-defined]
        handler = instructions[position[entry.target] :]
        if len(handler) < 2 or handler[0].opname != "PUSH_EXC_INFO":
            continue
        if handler[1].opname == "WITH_EXCEPT_START":
            before = position[entry.start]
            while before and instructions[before].opname not in ("BEFORE_WITH", "BEFORE_ASYNC_WITH"):
                before -= 1
            ranges.append(_Range(entry.start, entry.end, _expression_before(instructions[: before + 1])))
        elif _may_catch(handler[1:]):
            ranges.append(_Range(entry.start, entry.end))
    return ranges


def _may_catch(handler: list[dis.Instruction]) -> bool:
    """Return False for a handler that only cleans up and raises the same error again."""
    first = next((one.opname for one in handler if one.opname == "RERAISE" or one.opname in _CATCHES), None)
    return first != "RERAISE"


def _expression_before(instructions: list[dis.Instruction]) -> _Expression:
    """Return the expression whose value the last instruction uses; it enters a ``with`` statement or returns."""
    *before, last = instructions
    if (whole := _span(last)) is None:
        return _Expression()
    # The same ``with`` may enter other context managers first.
    entered = [i for i, one in enumerate(before) if one.opname == "BEFORE_WITH"]
    before = before[entered[-1] + 2 :] if entered else before
    inside = [(at, one) for one in before if (at := _span(one)) and whole[0] <= at[0] and at[1] <= whole[1]]
    begin = min((at[0] for at, _ in inside), default=whole[0])
    chains: list[tuple[str, ...]] = []
    steps = []  # opcodes of ``a.b(c)[d]`` without those of ``c`` and ``d``: their source begins where it begins
    follows = False
    for at, one in inside:
        if one.opname in _LOADS:
            chains.append((str(one.argval),))
        elif one.opname == _LOADS_TWO:
            chains += [(str(name),) for name in one.argval]
        elif follows and one.opname in _ATTRIBUTES:
            chains[-1] += (str(one.argval),)
        elif one.opname in (*_ATTRIBUTES, *_UNNAMED_VALUES):
            return _Expression()
        follows = one.opname in (_LOADS_TWO, *_LOADS, *_ATTRIBUTES)
        if at[0] == begin and one.opname not in (*_ATTRIBUTES, *_PREPARE_CALLS):
            steps.append(one.opname)
    ends = max((at[1] for at, _ in inside), default=whole[1])
    is_call = len(inside) > 1 and inside[-1][0] == (begin, ends)  # the last instruction uses the results of the others
    calls_first = is_call and len(steps) == 2 and steps[0] in _LOADS and steps[1] in _CALLS
    return _Expression(tuple(chains), calls_first)


def _span(instruction: dis.Instruction) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Return the line and column at which the source of an instruction begins, and those at which it ends."""
    positions = instruction.positions
    if positions is None or positions.lineno is None or positions.col_offset is None:
        return None
    return (positions.lineno, positions.col_offset), (positions.end_lineno or 0, positions.end_col_offset or 0)


def _resolve(chain: tuple[str, ...], scopes: _Scopes) -> Any:
    """Return the object that a name with its attributes refers to."""
    value = next((scope[chain[0]] for scope in scopes if chain[0] in scope), _UNKNOWN)
    for name in chain[1:]:
        value = _get_attribute(value, name)
    return value


def _get_attribute(owner: Any, name: str) -> Any:
    """Return an attribute, or the function that computes it; unknown if code would have to run."""
    if isinstance(owner, types.ModuleType):
        return vars(owner).get(name, _UNKNOWN)
    if isinstance(owner, torch.nn.Module) and name in owner._modules:
        return owner._modules[name]
    attribute = inspect.getattr_static(owner, name, _UNKNOWN)
    if isinstance(attribute, _DATA_DESCRIPTORS):
        return getattr(owner, name)
    if isinstance(attribute, staticmethod | classmethod):
        return attribute.__func__
    if isinstance(attribute, property):
        return attribute.fget
    runs_code = hasattr(type(attribute), "__get__") and not isinstance(attribute, FunctionType | type)
    return _UNKNOWN if runs_code and name not in getattr(owner, "__dict__", ()) else attribute


def _may_suppress(value: Any, depth: int) -> bool:
    """Return whether a context manager, or one that a class or function returns, may suppress errors."""
    kind = type(value)
    if kind in (FunctionType, types.MethodType):
        return not _is_transparent(value) and _function_may_suppress(value, depth)
    if kind is types.BuiltinFunctionType:
        return value.__name__ not in _LOCKS_AND_FILES
    if kind in (list, tuple, dict):
        return any(_may_suppress(item, depth) for item in (value.values() if kind is dict else value))
    if kind is contextlib._GeneratorContextManager:
        return _handles_errors(value.func.__code__, value.func.__globals__)
    if kind is contextlib.ExitStack:
        return any(_exit_may_suppress(callback) for _, callback in value._exit_callbacks)
    return _class_may_suppress(value if isinstance(value, type) else kind)


@functools.lru_cache(maxsize=1024)
def _class_may_suppress(cls: type) -> bool:
    if _is_transparent(cls) or cls in _WITHOUT_EXIT:
        return False
    exit_method = inspect.getattr_static(cls, "__exit__", _UNKNOWN)
    if isinstance(exit_method, FunctionType):
        return not _is_transparent(exit_method) and _may_return_true(exit_method.__code__)
    return exit_method is _UNKNOWN  # methods in C, such as those of locks and files, suppress nothing


def _exit_may_suppress(callback: Any) -> bool:
    """Return whether a callback of an ``ExitStack`` may suppress errors.

    A method is the ``__exit__`` of a context manager. A function was passed to ``push``, and may suppress errors, or to
    ``callback``, which sets ``__wrapped__`` and ignores its result.
    """
    if isinstance(callback, types.MethodType):
        return _may_suppress(callback.__self__, _MAX_DEPTH)
    return not hasattr(callback, "__wrapped__")


def _function_may_suppress(function: Any, depth: int) -> bool:
    """Return whether a context manager that a function returns may suppress errors."""
    if function.__code__ is _CONTEXTMANAGER_CODE:
        generator = function.__wrapped__
        return _handles_errors(generator.__code__, generator.__globals__)
    if str(function.__globals__.get("__name__")).startswith(_TYPE_CHECKERS):  # returns what the function returns
        return _may_suppress(function.__wrapped__, depth)
    scopes: _Scopes = ({}, function.__globals__, function.__builtins__)
    return depth == 0 or any(one.may_suppress(scopes, depth - 1) for one in _returned_expressions(function.__code__))


@functools.cache
def _returned_expressions(code: CodeType) -> list[_Expression]:
    """Return the expressions of a function's ``return`` statements, except for constants."""
    instructions = list(dis.get_instructions(code))
    return [
        _expression_before(instructions[: i + 1])
        for i, one in enumerate(instructions)
        if one.opname == "RETURN_VALUE" and instructions[i - 1].opname != "LOAD_CONST"
    ]


def _may_return_true(code: CodeType) -> bool:
    """Return whether a function may return a true value, from its code alone."""
    before: dis.Instruction | None = None
    for instruction in dis.get_instructions(code):
        if instruction.opname == "RETURN_CONST" and instruction.argval:
            return True
        constant = before is not None and before.opname == "LOAD_CONST" and not before.argval
        if instruction.opname == "RETURN_VALUE" and not constant:
            return True
        before = instruction
    return False


def _is_transparent(definition: Any) -> bool:
    return str(definition.__module__).partition(".")[0] in _TRANSPARENT_LIBRARIES
