from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from zoo.gradients.graphs._provenance.names import Names


class Plate(NamedTuple):
    """A dimension of a batch whose elements a program declares independent."""

    name: str
    dim: int
    """Counted from the right, negative."""
    size: int


Plates = frozenset[Plate]
NO_PLATES: Plates = frozenset()

Reach = Mapping[str, Plates]
"""Sites that influence a log-probability; of each the plates in which its elements meet one element alone. Over all
other dimensions of the log-probability they influence the sum."""


class Node(NamedTuple):
    """A sample statement, as far as it matters who influences it."""

    name: str
    plates: Plates
    parents: Names
    """Sites that its log-probability was computed from, or that steered the program there."""
    steered_by: Names
    """Those that steered the program."""


@lru_cache(maxsize=64)
def reaches(guide: tuple[Node, ...], model: tuple[Node, ...]) -> tuple[tuple[Reach, ...], tuple[Reach, ...]]:
    """Find which sites of a guide influence which log-probabilities, and along which plates.

    A plate is taken at its word: its elements do not influence each other, as long as the way from one to the other
    does not lead out of it. What steers the program, as a branch or an index, steers it for all elements at once.

    Args:
        guide: its sites in the order in which they were sampled.
        model: likewise.

    Returns:
        Of each site of the guide, and of each of the model.

    Example:
        >>> data = frozenset({Plate("data", -1, 100)})
        >>> def node(name, plates, *parents):
        ...     return Node(name, plates, frozenset(parents), frozenset())
        >>> _, (mean, x) = reaches((node("z", data, "z"),), (node("mean", frozenset(), "z"), node("x", data, "z")))
        >>> mean["z"], x["z"]
        (frozenset(), frozenset({Plate(name='data', dim=-1, size=100)}))
    """
    known: dict[str, Reach] = {}
    for node in guide:
        known[node.name] = follow(node, known)
    return tuple(known.values()), tuple(follow(node, known) for node in model)


def follow(node: Node, known: Mapping[str, Reach]) -> Reach:
    """Follow all ways that lead to a node, given those that lead to its parents."""
    found: dict[str, Plates] = {}
    for parent in node.parents:
        along = NO_PLATES if parent in node.steered_by else node.plates
        for source, plates in known.get(parent, {node.name: node.plates}).items():  # unknown yet: the node itself
            found[source] = found.get(source, plates) & plates & along
    return found
