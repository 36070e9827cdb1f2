from collections.abc import Mapping
from typing import Any

from zoo.inference.elbo import BlackBoxELBO
from zoo.inference.elbo._dependencies import Plates, Reach
from zoo.inference.elbo._sites import PARTICLES, Run, Site
from zoo.inference.elbo._tracing import Program


class WholeELBO(BlackBoxELBO):
    """Black-box variational inference without Rao-Blackwellisation: each score is multiplied with the whole ELBO.

    Equation 2 of Ranganath, Gerrish & Blei, "Black box variational inference", 2014, "Basic" in their figure 2. Its
    gradient has the same expectation, and a variance that grows with the model. Here for comparison alone.

    Args and Raises: as ``BlackBoxELBO``.

    Example:
        >>> WholeELBO(num_particles=4, baseline="none").num_particles
        4
    """

    def _runs(
        self, model: Program, guide: Program, args: tuple[Any, ...], kwargs: dict[str, Any], particles: int
    ) -> list[Run]:
        return [WholeRun(*run) for run in super()._runs(model, guide, args, kwargs, particles)]


class WholeRun(Run):
    """A run in which every site of the guide is taken to influence everything, but for other particles."""

    def reaches(self) -> tuple[tuple[Reach, ...], tuple[Reach, ...]]:
        """Name all sites of the guide for each site of both."""

        def reach(site: Site) -> Mapping[str, Plates]:
            return dict.fromkeys(self.guide, frozenset(plate for plate in site.plates if plate.name == PARTICLES))

        return tuple(map(reach, self.guide.values())), tuple(map(reach, self.model.values()))
