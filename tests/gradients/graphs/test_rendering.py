import random
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from zoo.gradients.graphs._rendering import LETTER, render_graph

SVG = "{http://www.w3.org/2000/svg}"
SKIP = {"a": (), "b": ("a",), "c": ("a", "b")}
LONG = {"policy/encoder/location[3]": (), "f": ("policy/encoder/location[3]",), "地图的位置": ("f",), "x" * 200: ("f",)}


def random_graph(seed, size=14):
    """Names of 1 to 30 letters, each with up to three parents among those before."""
    noise = random.Random(seed)
    names = [f"{'n' * noise.randint(1, 28)}{i}" for i in range(size)]
    return {name: tuple(noise.sample(names[:i], min(i, noise.randint(0, 3)))) for i, name in enumerate(names)}


GRAPHS = [{}, SKIP, LONG, *map(random_graph, range(20))]


def drawn(graph):
    parents = {name: frozenset(above) for name, above in graph.items()}
    return ElementTree.fromstring(render_graph(parents, stochastic=frozenset(list(graph)[::2])))


def boxes(svg):
    """Left, top, right and bottom of each node."""
    found = {}
    for group in svg.iter(f"{SVG}g"):
        shape = next(child for child in group if child.tag not in (f"{SVG}title", f"{SVG}text"))
        look = {key: float(value) for key, value in shape.attrib.items() if key not in ("fill", "stroke")}
        text, title = group.find(f"{SVG}text").text, group.find(f"{SVG}title")
        name = text if title is None else title.text
        if "cx" in look:
            rx, ry = look.get("rx", look.get("r")), look.get("ry", look.get("r"))
            found[name] = (look["cx"] - rx, look["cy"] - ry, look["cx"] + rx, look["cy"] + ry)
        else:
            found[name] = (look["x"], look["y"], look["x"] + look["width"], look["y"] + look["height"])
    return found


def edges(svg):
    """Points of each edge."""
    for line in svg.iter(f"{SVG}line"):
        yield [(float(line.get("x1")), float(line.get("y1"))), (float(line.get("x2")), float(line.get("y2")))]
    for line in svg.iter(f"{SVG}polyline"):
        yield [tuple(map(float, point.split(","))) for point in line.get("points").split()]


def meets(box, start, end):
    """Whether a segment of an edge crosses a node, tested at points along it."""
    left, top, right, bottom = box
    for i in range(101):
        x, y = (a + (b - a) * i / 100 for a, b in zip(start, end, strict=True))
        if left + 0.5 < x < right - 0.5 and top + 0.5 < y < bottom - 0.5:
            return True
    return False


@pytest.mark.parametrize("graph", GRAPHS)
class TestLayout:
    def test_every_node_and_edge_is_drawn_once(self, graph):
        svg = drawn(graph)
        assert set(boxes(svg)) == set(graph)
        assert len(list(edges(svg))) == sum(map(len, graph.values()))

    def test_no_edge_crosses_a_node(self, graph):
        svg = drawn(graph)
        for edge in edges(svg):
            for start, end in pairwise(edge):
                assert not any(meets(box, start, end) for box in boxes(svg).values())

    def test_edges_join_parents_to_their_children(self, graph):
        svg = drawn(graph)
        place = {name: ((box[0] + box[2]) / 2, box[1], box[3]) for name, box in boxes(svg).items()}
        expected = {
            (place[parent][0], place[parent][2], place[name][0], place[name][1])
            for name, above in graph.items()
            for parent in above
        }
        found = {(*edge[0], *edge[-1]) for edge in edges(svg)}
        assert sorted(found) == [pytest.approx(each, abs=0.6) for each in sorted(expected)]

    def test_nodes_do_not_overlap_and_lie_within_the_image(self, graph):
        svg = drawn(graph)
        width, height = float(svg.get("width")), float(svg.get("height"))
        all_boxes = list(boxes(svg).values())
        for i, (left, top, right, bottom) in enumerate(all_boxes):
            assert left >= 0
            assert top >= 0
            assert right <= width
            assert bottom <= height
            for other in all_boxes[:i]:
                assert right < other[0] or other[2] < left or bottom < other[1] or other[3] < top

    def test_names_lie_within_their_nodes(self, graph):
        svg = drawn(graph)
        for text, box in zip(svg.iter(f"{SVG}text"), boxes(svg).values(), strict=True):
            assert len(text.text) * LETTER <= box[2] - box[0]


def test_edge_that_passes_a_row_has_its_own_lane():
    (passing,) = (edge for edge in edges(drawn(SKIP)) if len(edge) > 2)
    assert len(passing) == 4


def test_long_names_are_shortened_and_kept_in_the_title():
    svg = drawn(LONG)
    assert "x" * 200 in {title.text for title in svg.iter(f"{SVG}title")}
    assert max(len(text.text) for text in svg.iter(f"{SVG}text")) <= 32


def test_names_are_escaped():
    assert set(boxes(drawn({"<a & b>": ()}))) == {"<a & b>"}
