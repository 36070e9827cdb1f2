"""Assert statements that look at values."""

import ast
import linecache
import os
import sys
from functools import lru_cache
from types import CodeType, FrameType, TracebackType

from zoo.gradients.graphs._provenance.control_flow import caller, module_name
from zoo.gradients.graphs._provenance.names import Names
from zoo.gradients.graphs._provenance.provenance import Provenance

Place = tuple[int, int]
"""Line and column."""


class AssertAwareProvenance(Provenance):
    """Provenance that tells values which assert statements look at from those that steer the program otherwise.

    Both count as steering it, as an ``except`` may catch what an assert raises.
    """

    def __init__(self) -> None:
        super().__init__()
        self.branched: set[str] = set()
        self.asserts: dict[str, str] = {}

    def escape(self, names: Names) -> None:
        """Note that values became Python objects."""
        super().escape(names)
        frame: FrameType | None = caller(sys._getframe(1))
        while frame is not None and module_name(frame).startswith("torch."):
            frame = frame.f_back
        where = None if frame is None else assert_at(frame.f_code, frame.f_lasti)
        if where is None:
            self.branched.update(names)
        else:
            self.asserts |= dict.fromkeys(names, where)

    def only_asserted(self) -> dict[str, str]:
        """Return the places of the asserts by the names of the values that nothing else has looked at."""
        return {name: where for name, where in self.asserts.items() if name not in self.branched}


def assert_that_raised(traceback: TracebackType | None) -> str | None:
    """Return the place of the assert statement in which an error was raised; None if it was none."""
    found = None
    while traceback is not None:
        if not module_name(traceback.tb_frame).startswith(("torch.", "zoo.")):
            found = assert_at(traceback.tb_frame.f_code, traceback.tb_lasti)
        traceback = traceback.tb_next
    return found


def assert_at(code: CodeType, instruction: int) -> str | None:
    """Return the file and line of the assert statement that an instruction is part of; None if it is part of none."""
    line, end_line, column, end_column = list(code.co_positions())[instruction // 2]
    if line is None or end_line is None or column is None or end_column is None:
        return None
    for start, end in assert_statements(code.co_filename):
        if start <= (line, column) and (end_line, end_column) <= end:
            return f"{os.path.basename(code.co_filename)}:{start[0]}"
    return None


@lru_cache(maxsize=64)
def assert_statements(filename: str) -> tuple[tuple[Place, Place], ...]:
    """Find where the assert statements of a file begin and end."""
    try:
        nodes = ast.walk(ast.parse("".join(linecache.getlines(filename))))
    except SyntaxError:
        return ()
    return tuple(
        ((node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0))
        for node in nodes
        if isinstance(node, ast.Assert)
    )
