from collections.abc import Mapping
from html import escape

from zoo.gradients.graphs.provenance import Names

STEP, RADIUS, MARGIN = 90, 24, 50  # pixels
STYLE = "font-family:sans-serif;font-size:13px;text-anchor:middle;dominant-baseline:central"


def draw_graph(parents: Mapping[str, Names], stochastic: Names) -> str:
    """Draw a graph as SVG: circles for stochastic nodes, squares for deterministic ones, arrows for influence.

    As in Schulman, Heess, Weber & Abbeel, "Gradient estimation using stochastic computation graphs", 2015. A node
    stands one row below the lowest of its parents.

    Args:
        parents: of each node, by name; every parent stands before its children.
        stochastic: names of the stochastic nodes.

    Example:
        >>> svg = draw_graph({"x": frozenset(), "f": frozenset({"x"})}, stochastic=frozenset({"x"}))
        >>> svg.count("<circle"), svg.count("<rect"), svg.count("<line")
        (1, 1, 1)
    """
    rows: dict[str, int] = {}
    for name, above in parents.items():
        rows[name] = 1 + max((rows[parent] for parent in above), default=-1)
    columns = {name: sum(rows[other] == rows[name] for other in list(rows)[:i]) for i, name in enumerate(rows)}
    place = {name: (MARGIN + STEP * columns[name], MARGIN + STEP * rows[name]) for name in rows}
    width = 2 * MARGIN + STEP * max(columns.values(), default=0)
    height = 2 * MARGIN + STEP * max(rows.values(), default=0)
    arrows = [arrow(place[parent], place[name]) for name, above in parents.items() for parent in sorted(above)]
    shapes = [node(name, *place[name], round=name in stochastic) for name in parents]
    head = (
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
        'orient="auto"><path d="M0,0 L8,4 L0,8 z"/></marker></defs>'
    )
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', head, *arrows, *shapes, "</svg>"])


def arrow(start: tuple[int, int], end: tuple[int, int]) -> str:
    """Draw an arrow between two nodes, from rim to rim."""
    (x0, y0), (x1, y1) = start, end
    length = max(1.0, ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5)
    dx, dy = RADIUS * (x1 - x0) / length, RADIUS * (y1 - y0) / length
    ends = f'x1="{x0 + dx:.1f}" y1="{y0 + dy:.1f}" x2="{x1 - dx:.1f}" y2="{y1 - dy:.1f}"'
    return f'<line {ends} stroke="black" marker-end="url(#tip)"/>'


def node(name: str, x: int, y: int, round: bool) -> str:
    """Draw a named node."""
    outline = 'fill="white" stroke="black"'
    shape = (
        f'<circle cx="{x}" cy="{y}" r="{RADIUS}" {outline}/>'
        if round
        else f'<rect x="{x - RADIUS}" y="{y - RADIUS}" width="{2 * RADIUS}" height="{2 * RADIUS}" {outline}/>'
    )
    return f'{shape}<text x="{x}" y="{y}" style="{STYLE}">{escape(name)}</text>'
