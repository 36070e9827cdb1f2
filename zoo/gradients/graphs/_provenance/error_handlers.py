import builtins
import dis
from bisect import bisect_right
from types import CodeType, FrameType
from typing import Any, NamedTuple

from zoo.gradients.graphs._provenance.context_managers import TRANSPARENT_LIBRARIES, WithExpression, last_with

_THREADS = "zoo.gradients.graphs._provenance.threads"  # an error ends the thread, and the program goes on
_INTERNAL_MODULES = ("zoo.gradients.graphs._provenance", "jaxtyping", "beartype")
_INTERPRETERS = ("zoo.gradients.graphs", "zoo.inference.elbo")  # which run a program
_CATCHES = {"CHECK_EXC_MATCH", "CHECK_EG_MATCH", "POP_EXCEPT", "RETURN_VALUE", "RETURN_CONST"}


class _Handlers(NamedTuple):
    """Where the code of a function handles errors."""

    edges: tuple[int, ...] = ()
    """Bytecode offsets at which ranges with an error handler begin and end, alternately."""
    withs: tuple[tuple[int, int, WithExpression], ...] = ()
    """Start, end and context manager of the bodies of ``with`` statements whose manager depends on variables."""
    is_program: bool = True
    """Whether it is code of the program: once its frames are passed, an interpreter's frame ends the search."""
    is_interpreter: bool = False


_NO_HANDLERS = _Handlers()
# Frames of type checkers and of the tracker occur between those of an interpreter and between those of the program.
_INTERNAL = _Handlers(is_program=False)
_INTERPRETER = _Handlers(is_interpreter=True)
_by_code: dict[int, tuple[CodeType, _Handlers]] = {}
"""By id, since hashing a code object is slow; the code objects are kept, so that no id is reused."""


def error_is_handled(frame: FrameType | None) -> bool:
    """Return whether the program would continue if the torch function that a frame calls raised an error.

    True inside ``try`` with an ``except``, and inside ``with`` if its context manager suppresses errors or if this
    cannot be decided without running code; not for ``finally``. Frames are searched up to the interpreter's.
    """
    in_program = False
    while frame is not None:
        try:
            _, handlers = _by_code[id(frame.f_code)]
        except KeyError:
            handlers = _analyze(frame.f_code, frame.f_globals)
            _by_code[id(frame.f_code)] = frame.f_code, handlers
        if handlers.is_interpreter:
            if in_program:
                return False
        else:
            if handlers.edges and bisect_right(handlers.edges, frame.f_lasti) % 2:
                return True
            for start, stop, expression in handlers.withs:
                if start <= frame.f_lasti < stop and expression.may_suppress(
                    (frame.f_locals, frame.f_globals, frame.f_builtins), _handles_errors
                ):
                    return True
            in_program = in_program or handlers.is_program
        frame = frame.f_back
    return False


def _analyze(code: CodeType, namespace: dict[str, Any]) -> _Handlers:
    module = str(namespace.get("__name__"))
    if module == _THREADS:
        return _Handlers(edges=(0,))
    if module.startswith(_INTERNAL_MODULES):
        return _INTERNAL
    if module.startswith(_INTERPRETERS):
        return _INTERPRETER
    if (
        not code.co_exceptiontable
        or module.partition(".")[0] in TRANSPARENT_LIBRARIES
        or (module == "contextlib" and code.co_name in ("__enter__", "__exit__"))  # which handle StopIteration
    ):
        return _NO_HANDLERS
    handled, withs = _handled_ranges(code, namespace)
    if module == "contextlib":  # a manager as a decorator enters self._recreate_cm(), equivalent to self
        names = [tuple(chain[:1] for chain in expression.chains) for _, _, expression in withs]
        withs = [(start, stop, WithExpression(name)) for (start, stop, _), name in zip(withs, names, strict=True)]
    edges: list[int] = []
    for start, stop in sorted(handled):  # the union of the ranges
        if edges and start <= edges[-1]:
            edges[-1] = max(edges[-1], stop)
        else:
            edges += [start, stop]
    return _Handlers(tuple(edges), tuple(withs))


def _handles_errors(code: CodeType, namespace: dict[str, Any]) -> bool:
    """Return whether any part of a function handles errors, whatever its variables hold."""
    return bool(_handled_ranges(code, namespace)[0])


def _handled_ranges(
    code: CodeType, namespace: dict[str, Any]
) -> tuple[list[tuple[int, int]], list[tuple[int, int, WithExpression]]]:
    """Return the ranges of offsets where errors are handled, and those where that depends on variables."""
    bytecode = dis.Bytecode(code)
    instructions = list(bytecode)
    position = {instruction.offset: i for i, instruction in enumerate(instructions)}
    local, scopes = {*code.co_varnames, *code.co_cellvars, *code.co_freevars}, (namespace, vars(builtins))
    handled, withs = [], []
    for entry in bytecode.exception_entries:  # type: ignore[attr-defined]
        handler = instructions[position[entry.target] :]
        if len(handler) < 2 or handler[0].opname != "PUSH_EXC_INFO":
            continue
        if handler[1].opname == "WITH_EXCEPT_START":
            expression = last_with(instructions[: position[entry.start]])
            if not expression.is_constant(local, scopes):
                withs.append((entry.start, entry.end, expression))
            elif expression.may_suppress(scopes, _handles_errors):
                handled.append((entry.start, entry.end))
        elif _may_catch(handler[1:]):
            handled.append((entry.start, entry.end))
    return handled, withs


def _may_catch(handler: list[dis.Instruction]) -> bool:
    """Return False for a handler that only cleans up and raises the same error again."""
    first = next((one.opname for one in handler if one.opname == "RERAISE" or one.opname in _CATCHES), None)
    return first != "RERAISE"
