import builtins
import dis
import sys
from bisect import bisect_right
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any

from zoo.gradients.graphs._provenance.context_managers import PASS_ON, Expression, expression_before

THREADS = "zoo.gradients.graphs._provenance.threads"  # where an error ends the thread, and the program goes on
OWN = "zoo.gradients.graphs._provenance"
END = ("zoo.gradients.graphs", "zoo.inference.elbo")  # whoever runs a program
CATCHES = {"CHECK_EXC_MATCH", "CHECK_EG_MATCH", "POP_EXCEPT", "RETURN_VALUE", "RETURN_CONST"}


Edges = tuple[int, ...] | None
"""Offsets at which a function's instructions begin to be handled by it, or not to be, by turns; None for an end."""


# Frames of type checkers stand between our own functions as well as between the program's: they handle nothing.
CHECKER: Edges = (sys.maxsize,)
# By the identity of code objects, which are kept, since their own hash goes over all their constants.
_known: dict[int, Edges] = {}
# Bodies of `with` statements that enter what a variable holds, which may be another thing each time.
_variable: dict[int, list[tuple[int, int, Expression]]] = {}
_kept: list[CodeType] = []


def error_is_handled(frame: FrameType | None) -> bool:
    """Tell whether the program would go on if what a frame now does raised an error.

    True inside ``try`` with an ``except``, and inside ``with`` if its context manager suppresses errors, or if code
    would have to run to find the context manager; not for ``finally``.

    Args:
        frame: that calls a torch function; looked at up to whoever runs the program.
    """
    begun = False
    while frame is not None:
        try:
            edges = _known[id(frame.f_code)]
        except KeyError:
            edges = _analyze(frame.f_code, frame.f_globals)
        if id(frame.f_code) in _variable and _variable_may_suppress(frame):
            return True
        if edges:
            if bisect_right(edges, frame.f_lasti) % 2:
                return True
            begun = begun or edges is not CHECKER
        elif edges is not None:
            begun = True
        elif begun:
            return False
        frame = frame.f_back
    return False


def _analyze(code: CodeType, namespace: dict[str, Any]) -> Edges:
    module = str(namespace.get("__name__"))
    edges: Edges = ()
    if module == THREADS:
        edges = (0,)
    elif module.startswith(OWN):
        edges = CHECKER  # around what torch runs inside a function
    elif module.startswith(END):
        edges = None
    elif module.startswith(("jaxtyping", "beartype")):
        edges = CHECKER
    elif module == "contextlib" and code.co_name in ("__enter__", "__exit__"):
        edges = ()  # handles the end of a generator
    elif code.co_exceptiontable and module.partition(".")[0] not in PASS_ON:
        handled, variable = _handled_ranges(code, namespace)
        edges = tuple(_edges(handled))
        if module == "contextlib":  # a manager as a decorator enters self._recreate_cm(), which is like self
            variable = [(start, end, entered.without_attributes()) for start, end, entered in variable]
        if variable:
            _variable[id(code)] = variable
    _kept.append(code)
    _known[id(code)] = edges
    return edges


def _edges(ranges: list[tuple[int, int]]) -> Iterator[int]:
    """Yield where the union of ranges begins and ends, by turns."""
    end = -1
    for start, stop in sorted(ranges):
        if start > end:
            if end >= 0:
                yield end
            yield start
        end = max(end, stop)
    if end >= 0:
        yield end


def _variable_may_suppress(frame: FrameType) -> bool:
    """Tell whether a ``with`` statement that a frame is in has entered a variable that suppresses errors."""
    here = frame.f_lasti
    entered = [expression for start, stop, expression in _variable[id(frame.f_code)] if start <= here < stop]
    return any(one.may_suppress((frame.f_locals, frame.f_globals, frame.f_builtins), _handles) for one in entered)


def _handles(code: CodeType, namespace: dict[str, Any]) -> bool:
    """Tell whether any part of a function handles errors; what its variables hold is not known."""
    return bool(_handled_ranges(code, namespace)[0])


def _handled_ranges(
    code: CodeType, namespace: dict[str, Any]
) -> tuple[list[tuple[int, int]], list[tuple[int, int, Expression]]]:
    """Return the offsets, from and to, at which an error is handled, and those where that hangs on a variable."""
    bytecode = dis.Bytecode(code)
    instructions = list(bytecode)
    position = {instruction.offset: i for i, instruction in enumerate(instructions)}
    local = {*code.co_varnames, *code.co_cellvars, *code.co_freevars}
    handled, variable = [], []
    for entry in bytecode.exception_entries:  # type: ignore[attr-defined]
        handler = instructions[position[entry.target] :]
        if len(handler) < 2 or handler[0].opname != "PUSH_EXC_INFO":
            continue
        if handler[1].opname != "WITH_EXCEPT_START":
            if _may_catch(handler[1:]):
                handled.append((entry.start, entry.end))
            continue
        entered = expression_before(instructions[: position[entry.start]])
        scopes = (namespace, vars(builtins))
        if entered.has_any_of(local) or entered.makes_a_stack(scopes) or entered.varies(scopes):
            variable.append((entry.start, entry.end, entered))
        elif entered.may_suppress(scopes, _handles):
            handled.append((entry.start, entry.end))
    return handled, variable


def _may_catch(handler: list[dis.Instruction]) -> bool:
    """Tell whether a handler does more than to clean up and raise the same error again."""
    for instruction in handler:
        if instruction.opname == "RERAISE":
            return False
        if instruction.opname in CATCHES:
            return True
    return True
