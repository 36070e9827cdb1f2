import dis
import sys
import types
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from types import CodeType, FrameType
from typing import Any, NamedTuple

THREADS = "zoo.gradients.graphs._threads"  # where an error ends the thread, and the program goes on
END = ("zoo.gradients.graphs", "zoo.inference.black_box")  # whoever runs a program
# Libraries whose handlers and context managers let errors of values pass.
PASS_ON = ("torch", "pyro", "jaxtyping", "beartype")
LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_DEREF", "LOAD_CLOSURE")
LOADS_TWO = "LOAD_FAST_LOAD_FAST"  # of Python 3.13
CATCHES = {"CHECK_EXC_MATCH", "CHECK_EG_MATCH", "POP_EXCEPT", "RETURN_VALUE", "RETURN_CONST"}


Edges = tuple[int, ...] | None
"""Offsets at which a function's instructions begin to be handled by it, or not to be, by turns; None for an end."""


class _Managers(NamedTuple):
    """Edges of a function with context managers that are, or come from, its variables: by the packages of these."""

    chains: tuple[tuple[str, ...], ...]
    """Variables, each with the attributes that follow: ``self.plate``."""
    edges: dict[tuple[str | None, ...], Edges]


# Frames of type checkers stand between our own functions as well as between the program's: they handle nothing.
CHECKER: Edges = (sys.maxsize,)
# By the identity of code objects, which are kept, since their own hash goes over all their constants.
_known: dict[int, Edges | _Managers] = {}
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
            known = _known[id(frame.f_code)]
        except KeyError:
            known = _analyze(frame.f_code, frame.f_globals)
        edges = _with_variables(known, frame) if isinstance(known, _Managers) else known
        if edges:
            if bisect_right(edges, frame.f_lasti) % 2 and not _is_decorator_of_a_library(frame):
                return True
            begun = begun or edges is not CHECKER
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


def _with_variables(managers: _Managers, frame: FrameType) -> Edges:
    variables = frame.f_locals
    packages = tuple(_package(_resolved(chain, variables)) for chain in managers.chains)
    if packages not in managers.edges:
        namespace = {**frame.f_globals, **variables}
        managers.edges[packages] = tuple(_edges(_handled_ranges(frame.f_code, namespace)))
    return managers.edges[packages]


def _analyze(code: CodeType, namespace: dict[str, Any]) -> Edges | _Managers:
    module = str(namespace.get("__name__"))
    edges: Edges | _Managers = ()
    if module == THREADS:
        edges = (0,)
    elif module.startswith(END):
        edges = None
    elif module.startswith(("jaxtyping", "beartype")):
        edges = CHECKER
    elif module == "contextlib" and code.co_name in ("__enter__", "__exit__"):
        edges = ()  # handles the end of a generator
    elif code.co_exceptiontable and module.partition(".")[0] not in PASS_ON:
        local = {*code.co_varnames, *code.co_cellvars, *code.co_freevars}
        chains = {chain for manager in _managers(list(dis.Bytecode(code))) for chain in manager if chain[0] in local}
        edges = _Managers(tuple(chains), {}) if chains else tuple(_edges(_handled_ranges(code, namespace)))
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

    Known by the names in its expression, ``torch.no_grad()`` or ``data`` for a plate: all of PASS_ON.
    """
    managers = _managers(before)
    found = [_resolved(chain, namespace) for chain in managers[-1]] if managers else []
    packages = {_package(one) for one in found} - {None}
    return bool(packages) and packages <= {*PASS_ON}


def _managers(instructions: list[dis.Instruction]) -> list[list[tuple[str, ...]]]:
    """Find what each ``with`` enters: the names in its expression, each with the attributes that follow."""
    return [
        _names(instructions[: i + 1])
        for i, instruction in enumerate(instructions)
        if instruction.opname == "BEFORE_WITH"
    ]


def _names(before: list[dis.Instruction]) -> list[tuple[str, ...]]:
    """Find the names in the expression that the last instruction enters."""
    if not before or (place := before[-1].positions) is None or place.lineno is None:
        return []
    begin, end = (place.lineno, place.col_offset), (place.end_lineno, place.end_col_offset)
    chains: list[tuple[str, ...]] = []
    follows = False
    for one in before:
        here = one.positions
        if here is None or here.lineno is None or not begin <= (here.lineno, here.col_offset) <= end:
            follows = False
        elif one.opname in LOADS:
            chains.append((one.argval,))
            follows = True
        elif one.opname == LOADS_TWO:
            chains += [(name,) for name in one.argval]
            follows = True
        elif follows and one.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            chains[-1] += (one.argval,)
        else:
            follows = False
    return chains


def _resolved(chain: tuple[str, ...], namespace: Mapping[str, Any]) -> Any:
    """Give what a name stands for, with those of the attributes that can be looked up without running code."""
    found = namespace.get(chain[0])
    for name in chain[1:]:
        held = getattr(found, "__dict__", {})
        if name not in held:
            break
        found = held[name]
    return found


def _package(found: Any) -> str | None:
    """Name the package that something, or its class, comes from; None of what has none, as numbers.

    That of ``nullcontext`` is torch, as both pass errors on.
    """
    if found is nullcontext or isinstance(found, nullcontext):
        return "torch"
    module = found.__name__ if isinstance(found, types.ModuleType) else getattr(found, "__module__", None)
    return None if module is None else str(module).partition(".")[0]
