from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor
from torch.distributions import Distribution

from zoo.gradients.graphs._provenance.names import Names
from zoo.inference.elbo._densities import Density
from zoo.inference.elbo._dependencies import Node, Plates, Reach, reaches

PARTICLES = "num_particles_vectorized"
"""Name of the plate of the particles, where they are vectorised."""


class Site(NamedTuple):
    """One ``pyro.sample`` statement of one run."""

    name: str
    distribution: Distribution
    value: Tensor
    density: Density
    """Scaled and masked, but for the score."""
    plates: Plates
    parents: Names
    """Sites of the guide that the log-probability was computed from, or that steered the program here."""
    steered_by: Names
    """Those whose values became Python objects before."""
    observed: bool
    scale: float | Tensor
    infer: Mapping[str, Any]
    grad_enabled: bool
    """Whether gradients were on at the sample statement."""
    uses_cut_view: bool
    """Whether its distribution was computed from a view without a gradient, see ``Provenance.uses_no_grad_view``."""

    @property
    def node(self) -> Node:
        """What matters of it for who influences it."""
        return Node(self.name, self.plates, self.parents, self.steered_by)


class Run(NamedTuple):
    """One run of a guide, and of the model on the values that the guide drew."""

    guide: Mapping[str, Site]
    model: Mapping[str, Site]
    steered_by: Names
    """Sites of the guide whose values steered the program."""
    plates_of_guide_alone: Names = frozenset()
    """Names of plates that the guide entered and the model did not."""
    asserted: Mapping[str, str] = MappingProxyType({})
    """Places of assert statements, by the sites among ``steered_by`` at whose values nothing else looked."""

    def reaches(self) -> tuple[tuple[Reach, ...], tuple[Reach, ...]]:
        """Who influences each site of the guide, and each of the model."""
        return reaches(tuple(s.node for s in self.guide.values()), tuple(s.node for s in self.model.values()))


def nesting(run: Run) -> int:
    """Tell how many dimensions the plates of a run take, and batches that no plate declares."""
    sites = [*run.guide.values(), *run.model.values()]
    plates = [-plate.dim for site in sites for plate in site.plates]
    return max(plates + [site.density.log_prob.ndim for site in sites], default=0)


def sites_of(runs: Sequence[Run]) -> Iterator[tuple[str, Site]]:
    """Go through all sites, in the order in which they were sampled."""
    for run in runs:
        for where, sites in (("guide", run.guide), ("model", run.model)):
            for site in sites.values():
                yield where, site
