"""Assert statements that use sampled values."""

import ast
import linecache
import os
import sys
from functools import lru_cache
from types import CodeType, FrameType

from zoo.gradients.graphs._provenance.control_flow import caller, module_name
from zoo.gradients.graphs._provenance.names import Names
from zoo.gradients.graphs._provenance.provenance import Provenance

Position = tuple[int, int]
"""Line and column."""


class AssertAwareProvenance(Provenance):
    """Provenance that separates values used by assert statements from those used by other control flow.

    Both are control dependencies, since an ``except`` may catch the error of an assert.
    """

    def __init__(self) -> None:
        super().__init__()
        self.branched: set[str] = set()
        self.asserts: dict[str, str] = {}

    def add_control_dependencies(self, names: Names) -> None:
        """Also record whether it is an assert statement that uses the values."""
        super().add_control_dependencies(names)
        frame: FrameType | None = caller(sys._getframe(1))
        while frame is not None and module_name(frame).startswith("torch."):
            frame = frame.f_back
        location = None if frame is None else _assert_location(frame.f_code, frame.f_lasti)
        if location is None:
            self.branched.update(names)
        else:
            self.asserts |= dict.fromkeys(names, location)

    def only_asserted(self) -> dict[str, str]:
        """Return the location of the assert for each value that is used in assert statements only."""
        return {name: location for name, location in self.asserts.items() if name not in self.branched}


def _assert_location(code: CodeType, instruction: int) -> str | None:
    """Return file and line of the assert statement that contains an instruction; None if there is none."""
    line, end_line, column, end_column = list(code.co_positions())[instruction // 2]
    if line is None or end_line is None or column is None or end_column is None:
        return None
    for start, end in _assert_statements(code.co_filename):
        if start <= (line, column) and (end_line, end_column) <= end:
            return f"{os.path.basename(code.co_filename)}:{start[0]}"
    return None


@lru_cache(maxsize=64)
def _assert_statements(filename: str) -> tuple[tuple[Position, Position], ...]:
    """Return the positions at which the assert statements of a file begin and end."""
    try:
        nodes = ast.walk(ast.parse("".join(linecache.getlines(filename))))
    except SyntaxError:
        return ()
    return tuple(
        ((node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0))
        for node in nodes
        if isinstance(node, ast.Assert)
    )
