from collections.abc import Mapping, Sequence
from html import escape
from unicodedata import east_asian_width

from zoo.gradients.graphs._provenance.names import Names

ROW, RADIUS, MARGIN = 100, 24, 30  # pixels: from row to row, half the height of a node, and around all
GAP, LANE = 24, 16  # pixels: between the nodes of a row, and the width of an edge that passes between them
LETTER, PADDING, LONGEST = 8, 8, 32  # pixels of a letter, and at both ends of a name; letters of a name
SWEEPS = 4  # down and up, each putting nodes nearer to their neighbours
STYLE = "font-family:sans-serif;font-size:13px;text-anchor:middle;dominant-baseline:central"


def render_graph(parents: Mapping[str, Names], stochastic: Names) -> str:
    """Draw a graph as SVG: circles for stochastic nodes, squares for deterministic ones, arrows for influence.

    As in Schulman, Heess, Weber & Abbeel, "Gradient estimation using stochastic computation graphs", 2015. A node
    stands one row below the lowest of its parents, and is as wide as its name. Edges that pass a row have a lane of
    their own between its nodes: Sugiyama, Tagawa & Toda, "Methods for visual understanding of hierarchical system
    structures", 1981.

    Args:
        parents: of each node, by name; every parent stands before its children.
        stochastic: names of the stochastic nodes.

    Example:
        >>> svg = render_graph({"x": frozenset(), "f": frozenset({"x"})}, stochastic=frozenset({"x"}))
        >>> svg.count("<circle"), svg.count("<rect"), svg.count("<line")
        (1, 1, 1)
    """
    rows: dict[str, int] = {}
    for name, above in parents.items():
        rows[name] = 1 + max((rows[parent] for parent in above), default=-1)
    layers = _ordered(_layers(rows, parents), rows, parents)
    widths = [sum(map(_width, layer, [rows[name] == row for name in layer])) for row, layer in enumerate(layers)]
    spaces = [GAP * (len(layer) - 1) for layer in layers]
    width = 2 * MARGIN + max(map(sum, zip(widths, spaces, strict=True)), default=0)
    height = 2 * (MARGIN + RADIUS) + ROW * max(len(layers) - 1, 0)

    centres: list[dict[str, float]] = []
    for row, layer in enumerate(layers):
        left = (width - widths[row] - spaces[row]) / 2
        centres.append({})
        for name in layer:
            wide = _width(name, rows[name] == row)
            centres[row][name] = left + wide / 2
            left += wide + GAP
    edges = [_edge(parent, name, rows, centres) for name, above in parents.items() for parent in sorted(above)]
    shapes = [_node(name, centres[rows[name]][name], _height(rows[name]), name in stochastic) for name in parents]
    head = (
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
        'orient="auto"><path d="M0,0 L8,4 L0,8 z"/></marker></defs>'
    )
    size = f'width="{width:.0f}" height="{height}" viewBox="0 0 {width:.0f} {height}"'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', head, *edges, *shapes, "</svg>"])


def _layers(rows: Mapping[str, int], parents: Mapping[str, Names]) -> list[list[str]]:
    """Names in each row: of its nodes, and of nodes further up whose edges pass it."""
    lowest = dict(rows)  # row before the lowest child
    for name, above in parents.items():
        for parent in above:
            lowest[parent] = max(lowest[parent], rows[name] - 1)
    count = 1 + max(rows.values(), default=-1)
    return [[name for name in rows if rows[name] <= row <= lowest[name]] for row in range(count)]


def _ordered(layers: list[list[str]], rows: Mapping[str, int], parents: Mapping[str, Names]) -> list[list[str]]:
    """Order each row by the mean place of its neighbours in the row above, or below, so that few edges cross."""
    above = [
        {name: sorted(parents[name]) if rows[name] == row else [name] for name in layer}
        for row, layer in enumerate(layers)
    ]
    below: list[dict[str, list[str]]] = [{name: [] for name in layer} for layer in layers]
    for row in range(1, len(layers)):
        for name, neighbours in above[row].items():
            for neighbour in neighbours:
                below[row - 1][neighbour].append(name)
    for _ in range(SWEEPS):
        for row in range(1, len(layers)):
            layers[row] = _by_neighbours(layers[row], above[row], layers[row - 1])
        for row in reversed(range(len(layers) - 1)):
            layers[row] = _by_neighbours(layers[row], below[row], layers[row + 1])
    return layers


def _by_neighbours(layer: list[str], neighbours: Mapping[str, Sequence[str]], others: list[str]) -> list[str]:
    place = {name: (i + 0.5) / len(others) for i, name in enumerate(others)}
    own = {name: (i + 0.5) / len(layer) for i, name in enumerate(layer)}
    means = {
        name: sum(place[other] for other in neighbours[name]) / len(neighbours[name]) if neighbours[name] else own[name]
        for name in layer
    }
    return sorted(layer, key=lambda name: means[name])


def _width(name: str, is_node: bool) -> int:
    """Width of a node or, where the edges of a node further up pass a row, of these."""
    if not is_node:
        return LANE
    letters = sum(1 + (east_asian_width(letter) in "WF") for letter in _label(name))
    return max(2 * RADIUS, LETTER * letters + 2 * PADDING)


def _label(name: str) -> str:
    """Name, without its middle if it is long."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST // 2]}…{name[1 - LONGEST // 2 :]}"


def _height(row: int) -> int:
    return MARGIN + RADIUS + ROW * row


def _edge(parent: str, name: str, rows: Mapping[str, int], centres: Sequence[Mapping[str, float]]) -> str:
    """Draw an arrow from the foot of a node to the head of another, straight through the rows between."""
    points = [(centres[rows[parent]][parent], _height(rows[parent]) + RADIUS)]
    for row in range(rows[parent] + 1, rows[name]):
        points += [(centres[row][parent], _height(row) - RADIUS), (centres[row][parent], _height(row) + RADIUS)]
    points.append((centres[rows[name]][name], _height(rows[name]) - RADIUS))
    look = 'stroke="black" marker-end="url(#tip)"'
    if len(points) == 2:
        (x0, y0), (x1, y1) = points
        return f'<line x1="{x0:.1f}" y1="{y0}" x2="{x1:.1f}" y2="{y1}" {look}/>'
    return f'<polyline points="{" ".join(f"{x:.1f},{y}" for x, y in points)}" fill="none" {look}/>'


def _node(name: str, x: float, y: int, is_round: bool) -> str:
    """Draw a named node; the whole of a name that is shortened is shown where the mouse rests on it."""
    outline, width = 'fill="white" stroke="black"', _width(name, is_node=True)
    if not is_round:
        corner = f'x="{x - width / 2:.1f}" y="{y - RADIUS}"'
        shape = f'<rect {corner} width="{width:.0f}" height="{2 * RADIUS}" {outline}/>'
    elif width == 2 * RADIUS:
        shape = f'<circle cx="{x:.1f}" cy="{y}" r="{RADIUS}" {outline}/>'
    else:
        shape = f'<ellipse cx="{x:.1f}" cy="{y}" rx="{width / 2:.0f}" ry="{RADIUS}" {outline}/>'
    whole = "" if _label(name) == name else f"<title>{escape(name)}</title>"
    return f'<g>{whole}{shape}<text x="{x:.1f}" y="{y}" style="{STYLE}">{escape(_label(name))}</text></g>'
