"""Gradient estimators that a variance report compares."""

from collections.abc import Callable, Sequence
from typing import Any

from zoo.inference.elbo import BlackBoxELBO
from zoo.inference.elbo._sites import PARTICLES, Dependencies, Run, Site
from zoo.inference.elbo._tracing import ModelGuideCall

BASIC, RAO_BLACKWELL, CONTROL_VARIATE = "basic", "Rao-Blackwell", "Rao-Blackwell, control variate"
"""Names in ``default_estimators`` of the estimators of the BBVI paper."""
BASELINES = ("moving_average", "leave_one_out")
_MULTI_SAMPLE = ("optimal", "leave_one_out")  # need at least 2 particles

Program = Callable[..., Any]


class ScoreFunctionELBO(BlackBoxELBO):
    """Score-function estimator without Rao-Blackwellization: each score is multiplied by the whole ELBO.

    Equation 2 of Ranganath, Gerrish & Blei, "Black box variational inference", 2014 ("Basic" in their figure 2). It is
    unbiased, with a variance that grows with the size of the model; for comparisons only.

    Example:
        >>> ScoreFunctionELBO(num_particles=4, baseline="none").num_particles
        4
    """

    def _trace(self, call: ModelGuideCall, num_particles: int) -> list[Run]:
        return [_FullDependencyRun(*run) for run in super()._trace(call, num_particles)]


class _FullDependencyRun(Run):
    """A run whose sites are all treated as dependent on all sites of the guide in the same particle."""

    def dependencies(self) -> tuple[tuple[Dependencies, ...], tuple[Dependencies, ...]]:
        def all_of_particle(site: Site) -> Dependencies:
            return dict.fromkeys(self.guide, frozenset(plate for plate in site.plates if plate.name == PARTICLES))

        return tuple(map(all_of_particle, self.guide.values())), tuple(map(all_of_particle, self.model.values()))


def default_estimators(
    num_particles: int, vectorize_particles: bool = False, baselines: Sequence[str] = BASELINES
) -> dict[str, BlackBoxELBO]:
    """Return the three estimators of the BBVI paper, and one with Rao-Blackwellization for each baseline, by name.

    The scaling of the control variate (``baseline="optimal"``) is estimated from the same particles, leave-one-out.
    With a single particle, baselines that need two are omitted.

    Example:
        >>> list(default_estimators(num_particles=1))
        ['basic', 'Rao-Blackwell', 'moving_average']
    """
    choices = {RAO_BLACKWELL: "none", CONTROL_VARIATE: "optimal", **{name: name for name in baselines}}
    if num_particles == 1:
        choices = {name: baseline for name, baseline in choices.items() if baseline not in _MULTI_SAMPLE}
    return {BASIC: ScoreFunctionELBO(num_particles, vectorize_particles, "none")} | {
        name: BlackBoxELBO(num_particles, vectorize_particles, baseline) for name, baseline in choices.items()
    }
