from collections.abc import Mapping, Sequence
from html import escape
from unicodedata import east_asian_width

from zoo.gradients.graphs._provenance.names import Names

# Lengths are in pixels.
_ROW = 100  # distance of rows
_RADIUS = 24  # half the height of a node
_MARGIN = 30  # around the graph
_GAP = 24  # between nodes of a row
_LANE = 16  # width reserved for an edge that passes between the nodes of a row
LETTER, _PADDING = 8, 8  # width of a letter, and space on both sides of a label
_MAX_LETTERS = 32  # of a label
_SWEEPS = 4  # passes down and up the rows, each of which moves nodes closer to their neighbors
_STYLE = "font-family:sans-serif;font-size:13px;text-anchor:middle;dominant-baseline:central"
_ARROW = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    '<path d="M0,0 L8,4 L0,8 z"/></marker></defs>'
)


def render_graph(parents: Mapping[str, Names], stochastic: Names) -> str:
    """Return a graph as SVG: circles for stochastic nodes, squares for deterministic ones, arrows for influence.

    As in Schulman, Heess, Weber & Abbeel, "Gradient estimation using stochastic computation graphs", 2015. ``parents``
    is in topological order. A node stands one row below the lowest of its parents. Edges that pass a row have a lane
    between its nodes: Sugiyama, Tagawa & Toda, "Methods for visual understanding of hierarchical system structures",
    1981.

    Example:
        >>> svg = render_graph({"x": frozenset(), "f": frozenset({"x"})}, stochastic=frozenset({"x"}))
        >>> svg.count("<circle"), svg.count("<rect"), svg.count("<line")
        (1, 1, 1)
    """
    rows: dict[str, int] = {}
    for name, above in parents.items():
        rows[name] = 1 + max((rows[parent] for parent in above), default=-1)
    layers = _order(_layers(rows, parents), rows, parents)
    widths = [[_width(name) if rows[name] == row else _LANE for name in layer] for row, layer in enumerate(layers)]
    totals = [sum(row) + _GAP * (len(row) - 1) for row in widths]
    width = 2 * _MARGIN + max(totals, default=0)
    height = 2 * (_MARGIN + _RADIUS) + _ROW * max(len(layers) - 1, 0)

    centers: list[dict[str, float]] = []
    for layer, node_widths, total in zip(layers, widths, totals, strict=True):
        left = (width - total) / 2
        centers.append({})
        for name, node_width in zip(layer, node_widths, strict=True):
            centers[-1][name] = left + node_width / 2
            left += node_width + _GAP
    edges = [_edge(parent, name, rows, centers) for name, above in parents.items() for parent in sorted(above)]
    nodes = [_node(name, centers[rows[name]][name], _y(rows[name]), name in stochastic) for name in parents]
    size = f'width="{width:.0f}" height="{height}" viewBox="0 0 {width:.0f} {height}"'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', _ARROW, *edges, *nodes, "</svg>"])


def _layers(rows: Mapping[str, int], parents: Mapping[str, Names]) -> list[list[str]]:
    """Return the names in each row: those of its nodes, and of nodes further up that have an edge to a node below."""
    last = dict(rows)  # row before the lowest child
    for name, above in parents.items():
        for parent in above:
            last[parent] = max(last[parent], rows[name] - 1)
    num_rows = 1 + max(rows.values(), default=-1)
    return [[name for name in rows if rows[name] <= row <= last[name]] for row in range(num_rows)]


def _order(layers: list[list[str]], rows: Mapping[str, int], parents: Mapping[str, Names]) -> list[list[str]]:
    """Sort each row by the mean position of the neighbors in the row above, or below, so that few edges cross."""
    above = [
        {name: sorted(parents[name]) if rows[name] == row else [name] for name in layer}
        for row, layer in enumerate(layers)
    ]
    below: list[dict[str, list[str]]] = [{name: [] for name in layer} for layer in layers]
    for row in range(1, len(layers)):
        for name, neighbors in above[row].items():
            for neighbor in neighbors:
                below[row - 1][neighbor].append(name)
    for _ in range(_SWEEPS):
        for row in range(1, len(layers)):
            layers[row] = _by_neighbors(layers[row], above[row], layers[row - 1])
        for row in reversed(range(len(layers) - 1)):
            layers[row] = _by_neighbors(layers[row], below[row], layers[row + 1])
    return layers


def _by_neighbors(layer: list[str], neighbors: Mapping[str, Sequence[str]], other_layer: list[str]) -> list[str]:
    position = {name: (i + 0.5) / len(other_layer) for i, name in enumerate(other_layer)}
    own = {name: (i + 0.5) / len(layer) for i, name in enumerate(layer)}

    def mean(name: str) -> float:
        found = [position[other] for other in neighbors[name]] or [own[name]]
        return sum(found) / len(found)

    return sorted(layer, key=mean)


def _width(name: str) -> int:
    letters = sum(1 + (east_asian_width(letter) in "WF") for letter in _label(name))
    return max(2 * _RADIUS, LETTER * letters + 2 * _PADDING)


def _label(name: str) -> str:
    """Return a name, without its middle if it is long."""
    return name if len(name) <= _MAX_LETTERS else f"{name[: _MAX_LETTERS // 2]}…{name[1 - _MAX_LETTERS // 2 :]}"


def _y(row: int) -> int:
    return _MARGIN + _RADIUS + _ROW * row


def _edge(parent: str, name: str, rows: Mapping[str, int], centers: Sequence[Mapping[str, float]]) -> str:
    """Return an arrow from the bottom of a node to the top of another, straight through the rows between."""
    points = [(centers[rows[parent]][parent], _y(rows[parent]) + _RADIUS)]
    for row in range(rows[parent] + 1, rows[name]):
        points += [(centers[row][parent], _y(row) - _RADIUS), (centers[row][parent], _y(row) + _RADIUS)]
    points.append((centers[rows[name]][name], _y(rows[name]) - _RADIUS))
    style = 'stroke="black" marker-end="url(#tip)"'
    if len(points) == 2:
        (x0, y0), (x1, y1) = points
        return f'<line x1="{x0:.1f}" y1="{y0}" x2="{x1:.1f}" y2="{y1}" {style}/>'
    return f'<polyline points="{" ".join(f"{x:.1f},{y}" for x, y in points)}" fill="none" {style}/>'


def _node(name: str, x: float, y: int, is_stochastic: bool) -> str:
    """Return a node with its label; the full name of a shortened one is a tooltip."""
    outline, width = 'fill="white" stroke="black"', _width(name)
    if not is_stochastic:
        corner = f'x="{x - width / 2:.1f}" y="{y - _RADIUS}"'
        shape = f'<rect {corner} width="{width:.0f}" height="{2 * _RADIUS}" {outline}/>'
    elif width == 2 * _RADIUS:
        shape = f'<circle cx="{x:.1f}" cy="{y}" r="{_RADIUS}" {outline}/>'
    else:
        shape = f'<ellipse cx="{x:.1f}" cy="{y}" rx="{width / 2:.0f}" ry="{_RADIUS}" {outline}/>'
    title = "" if _label(name) == name else f"<title>{escape(name)}</title>"
    return f'<g>{title}{shape}<text x="{x:.1f}" y="{y}" style="{_STYLE}">{escape(_label(name))}</text></g>'
