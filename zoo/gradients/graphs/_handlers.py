import dis
import types
from bisect import bisect_right
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any

THREADS = "zoo.gradients.graphs._threads"  # where an error ends the thread, and the program goes on
END = ("zoo.gradients.graphs", "zoo.inference.black_box")  # whoever runs a program
# Libraries whose handlers and context managers let errors of values pass.
PASS_ON = ("torch", "pyro", "jaxtyping", "beartype")
LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FAST", "LOAD_DEREF", "LOAD_CLOSURE")
CATCHES = {"CHECK_EXC_MATCH", "CHECK_EG_MATCH", "POP_EXCEPT", "RETURN_VALUE", "RETURN_CONST"}


Edges = tuple[int, ...] | None
"""Offsets at which a function's instructions begin to be handled by it, or not to be, by turns; None for an end."""

# By the identity of code objects, which are kept, since their own hash goes over all their constants.
_known: dict[int, Edges] = {}
_kept: list[CodeType] = []


def error_is_handled(frame: FrameType | None) -> bool:
    """Tell whether the program would go on if what a frame now does raised an error.

    True inside ``try`` with an ``except``, and inside ``with``, whose context manager may suppress errors; not for
    ``finally``, nor for the context managers of torch and Pyro.

    Args:
        frame: that calls a torch function; looked at up to whoever runs the program.
    """
    begun = False
    while frame is not None:
        try:
            edges = _known[id(frame.f_code)]
        except KeyError:
            edges = _analyze(frame.f_code, frame.f_globals)
        if edges:
            if bisect_right(edges, frame.f_lasti) % 2 and not _is_decorator_of_a_library(frame):
                return True
            begun = True
        elif edges is not None:
            begun = True
        elif begun:
            return False
        frame = frame.f_back
    return False


def _is_decorator_of_a_library(frame: FrameType) -> bool:
    """Tell whether a frame is that of a context manager around a function, both of a library."""
    if frame.f_globals.get("__name__") != "contextlib":
        return False
    return str(getattr(frame.f_locals.get("func"), "__module__", None)).partition(".")[0] in PASS_ON


def _analyze(code: CodeType, namespace: dict[str, Any]) -> Edges:
    module = str(namespace.get("__name__"))
    edges: Edges = ()
    if module == THREADS:
        edges = (0,)
    elif module.startswith(END):
        edges = None
    elif module == "contextlib" and code.co_name in ("__enter__", "__exit__"):
        edges = ()  # handles the end of a generator
    elif code.co_exceptiontable and module.partition(".")[0] not in PASS_ON:
        edges = tuple(_edges(_handled_ranges(code, namespace)))
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


def _handled_ranges(code: CodeType, namespace: dict[str, Any]) -> list[tuple[int, int]]:
    """Return the offsets, from and to, at which an error is caught, or may be."""
    bytecode = dis.Bytecode(code)
    instructions = list(bytecode)
    position = {instruction.offset: i for i, instruction in enumerate(instructions)}
    ranges = []
    for entry in bytecode.exception_entries:  # type: ignore[attr-defined]
        handler = instructions[position[entry.target] :]
        if len(handler) > 1 and handler[0].opname == "PUSH_EXC_INFO":
            if handler[1].opname == "WITH_EXCEPT_START":
                before = instructions[: position[entry.start]]
                catches = not _passes_on(before, namespace)
            else:
                catches = _may_catch(handler[1:])
            if catches:
                ranges.append((entry.start, entry.end))
    return ranges


def _may_catch(handler: list[dis.Instruction]) -> bool:
    """Tell whether a handler does more than to clean up and raise the same error again."""
    for instruction in handler:
        if instruction.opname == "RERAISE":
            return False
        if instruction.opname in CATCHES:
            return True
    return True


def _passes_on(before: list[dis.Instruction], namespace: dict[str, Any]) -> bool:
    """Tell whether the context manager of a ``with``, made by the instructions before it, is one that passes errors on.

    Known by the first name of the expression: ``torch.no_grad()``.
    """
    entering = [i for i, instruction in enumerate(before) if instruction.opname == "BEFORE_WITH"]
    if not entering or (place := before[entering[-1] - 1].positions) is None or place.lineno is None:
        return False
    begin, end = (place.lineno, place.col_offset), (place.end_lineno, place.end_col_offset)
    for one in before:
        here = one.positions
        if here is None or one.opname not in LOADS or not begin <= (here.lineno, here.col_offset) <= end:
            continue
        found = namespace.get(one.argval) if one.opname in ("LOAD_GLOBAL", "LOAD_NAME") else None
        module = found.__name__ if isinstance(found, types.ModuleType) else getattr(found, "__module__", None)
        return str(module).partition(".")[0] in PASS_ON
    return False
