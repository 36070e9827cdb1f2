import pytest

from zoo.inference.elbo._sites import Node, Plate, dependencies

DATA = frozenset({Plate("data", -1, 3)})
ROWS = frozenset({Plate("rows", -2, 2)})
NONE = frozenset()


def node(name, plates=NONE, parents="", control=""):
    return Node(name, plates, frozenset(parents.split()) | frozenset(control.split()), frozenset(control.split()))


def test_site_influences_itself_and_its_descendants():
    _, of_model = dependencies((node("z", parents="z"),), (node("z", parents="z"), node("x", parents="z"), node("y")))
    assert [set(reach) for reach in of_model] == [{"z"}, {"z"}, set()]


def test_influence_is_transitive_through_the_guide():
    guide = (node("a", parents="a"), node("b", parents="a b"), node("c", parents="b c"))
    of_guide, (of_x,) = dependencies(guide, (node("x", parents="c"),))
    assert [set(reach) for reach in of_guide] == [{"a"}, {"a", "b"}, {"a", "b", "c"}]
    assert set(of_x) == {"a", "b", "c"}


def test_elements_of_a_shared_plate_are_independent():
    _, (of_x, of_y) = dependencies((node("z", DATA | ROWS, "z"),), (node("x", DATA, "z"), node("y", DATA | ROWS, "z")))
    assert of_x["z"] == DATA
    assert of_y["z"] == DATA | ROWS


def test_plate_of_another_size_is_another_plate():
    other = frozenset({Plate("data", -1, 4)})
    _, (of_x,) = dependencies((node("z", DATA, "z"),), (node("x", other, "z"),))
    assert of_x["z"] == NONE


@pytest.mark.parametrize("beside", ["", "z"], ids=["only", "and a way inside"])
def test_path_that_leaves_and_enters_a_plate_reaches_all_elements(beside):
    guide = (node("z", DATA, "z"), node("out", NONE, "z out"), node("w", DATA, f"out w {beside}"))
    of_guide, (of_x,) = dependencies(guide, (node("x", DATA, "w"),))
    assert of_guide[2] == {"z": NONE, "out": NONE, "w": DATA}
    assert of_x == {"z": NONE, "out": NONE, "w": DATA}


def test_control_dependencies_affect_all_elements():
    _, (of_x,) = dependencies((node("z", DATA, "z"), node("y", DATA, "y")), (node("x", DATA, "y", control="z"),))
    assert of_x == {"z": NONE, "y": DATA}
