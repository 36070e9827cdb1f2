"""Sample statements of one run, and the dependencies between them."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor
from torch.distributions import Distribution

from zoo.gradients.graphs._provenance.names import Names
from zoo.inference.elbo._densities import Density

PARTICLES = "num_particles_vectorized"
"""Name of the plate of vectorized particles."""


class Plate(NamedTuple):
    """A batch dimension whose elements a program declares independent."""

    name: str
    dim: int
    """Negative: counted from the right."""
    size: int


Plates = frozenset[Plate]
NO_PLATES: Plates = frozenset()

Dependencies = Mapping[str, Plates]
"""Sites that influence a log-probability, each with the plates in which an element influences only the same element.
In all other dimensions, it influences all elements of the log-probability."""


class Node(NamedTuple):
    """The part of a sample statement that determines dependencies."""

    name: str
    plates: Plates
    parents: Names
    control_dependencies: Names


class Site(NamedTuple):
    """One ``pyro.sample`` statement of one run."""

    name: str
    distribution: Distribution
    value: Tensor
    density: Density
    """Scaled and masked, except for the score."""
    plates: Plates
    parents: Names
    """Sites of the guide that the log-probability was computed from, including the control dependencies."""
    control_dependencies: Names
    """Sites of the guide whose values were converted to Python objects before this statement."""
    observed: bool
    scale: float | Tensor
    infer: Mapping[str, Any]
    grad_enabled: bool
    """Whether gradients were enabled at the sample statement."""
    uses_no_grad_view: bool
    """Whether the distribution was computed from a view without gradient: see ``Provenance.uses_no_grad_view``."""

    @property
    def node(self) -> Node:
        return Node(self.name, self.plates, self.parents, self.control_dependencies)


class Run(NamedTuple):
    """One run of a guide, and of the model with the values drawn by the guide."""

    guide: Mapping[str, Site]
    model: Mapping[str, Site]
    control_dependencies: Names
    """Sites of the guide whose values determine the control flow."""
    guide_only_plates: Names = frozenset()
    """Names of plates that the model does not have."""
    asserted: Mapping[str, str] = MappingProxyType({})
    """Location of the assert statement, for each control dependency that is used in assert statements only."""

    def dependencies(self) -> tuple[tuple[Dependencies, ...], tuple[Dependencies, ...]]:
        """Return the dependencies of each site of the guide, and of each site of the model."""
        return dependencies(tuple(s.node for s in self.guide.values()), tuple(s.node for s in self.model.values()))


@lru_cache(maxsize=64)
def dependencies(
    guide: tuple[Node, ...], model: tuple[Node, ...]
) -> tuple[tuple[Dependencies, ...], tuple[Dependencies, ...]]:
    """Return the dependencies of each site of a guide and of a model, given in the order in which they were sampled.

    Elements of a plate are independent, as declared, as long as the path between two sites stays inside the plate.
    Control dependencies (branches, indices) affect all elements.
    """
    known: dict[str, Dependencies] = {}
    for node in guide:
        known[node.name] = propagate(node, known)
    return tuple(known.values()), tuple(propagate(node, known) for node in model)


def propagate(node: Node, known: Mapping[str, Dependencies]) -> Dependencies:
    """Return the dependencies of a node, given those of its parents."""
    found: dict[str, Plates] = {}
    for parent in node.parents:
        shared = NO_PLATES if parent in node.control_dependencies else node.plates
        for source, plates in known.get(parent, {node.name: node.plates}).items():  # unknown: the node itself
            found[source] = found.get(source, plates) & plates & shared
    return found


def plate_nesting(run: Run) -> int:
    """Return the number of dimensions of the plates of a run, and of batches outside plates."""
    sites = [*run.guide.values(), *run.model.values()]
    plates = [-plate.dim for site in sites for plate in site.plates]
    return max(plates + [site.density.log_prob.ndim for site in sites], default=0)


def all_sites(runs: Sequence[Run]) -> Iterator[tuple[str, Site]]:
    """Yield all sites with the name of their program, in the order in which they were sampled."""
    for run in runs:
        for program, sites in (("guide", run.guide), ("model", run.model)):
            for site in sites.values():
                yield program, site
