"""Checks of the sites of a run, and of the numbers computed from them."""

import logging
import math
import warnings
from collections.abc import Callable, Mapping, Sequence

import torch
from pyro.distributions import Delta, Unit
from torch import Tensor
from torch.distributions import Distribution

from zoo.gradients.graphs._distributions import (
    clamps_probability,
    nested_distributions,
    sampling_defect,
    support_depends_on_parameters,
)
from zoo.gradients.graphs._provenance.names import quote_names
from zoo.inference.elbo._messages import (
    HighVarianceWarning,
    NonFiniteELBOError,
    describe_site,
    diagnose_parameters,
    diagnose_value,
    innermost,
)
from zoo.inference.elbo._sites import PARTICLES, Run, Site, all_sites

Signature = tuple[str, str, type[Distribution], type[Distribution], bool, torch.Size, torch.Size]

logger = logging.getLogger(__name__)

MAX_NAMES = 5  # of further sites in a warning


class SiteRegistry:
    """Validates each site when it is new or has changed, and reports how its gradient is estimated."""

    def __init__(self) -> None:
        self.signatures: set[Signature] = set()
        self.reported: set[str] = set()
        self.discontinuous: set[str] = set()
        self.warned_of_variance = False
        self.guide_only_plates: set[str] = set()

    def validate(self, run: Run) -> bool:
        """Check the latent sites of a run, and return whether any site is new."""
        new = {name for name in {**run.guide, **run.model} if not _signatures(run, name) <= self.signatures}
        for site in _latent_sites(run):
            check_score(site)  # always, since a bound of the support may have become a parameter
            if site.name in new and site.name in run.model:
                check_shapes(site, run.model[site.name])
        return bool(new)

    def register(self, run: Run) -> None:
        """Remember the sites of a valid run, and report how gradients of new sites are estimated."""
        for name, site in run.model.items():
            if site.observed and not _signatures(run, name) <= self.signatures:
                check_data(site)  # late: the check of vectorized particles explains wrong shapes better
        self.signatures |= {signature for name in {**run.guide, **run.model} for signature in _signatures(run, name)}
        sites = [site for site in _latent_sites(run) if site.name not in self.reported]
        for site in sites:
            if site.density.score is None and "StraightThrough" in type(innermost(site.distribution)).__name__:
                warnings.warn(
                    f"{_describe(site)} uses the straight-through gradient, which is biased; wrap it in "
                    "NonReparameterized of zoo.inference.elbo to use the score function",
                    stacklevel=2,
                )
        self._warn_variance(run, [site for site in sites if _is_unplated(site)])
        if sites:
            self.reported |= {site.name for site in sites}
            method = {True: "pathwise", False: "score function"}
            described = [f"{_describe(site)} {method[site.density.score is None]}" for site in sites]
            logger.info("gradient of the ELBO: %s", "; ".join(described))
        names = {name for name in run.control_dependencies if run.guide[name].density.score is None}
        names -= self.discontinuous | run.asserted.keys()  # only one branch of an assert continues
        if names:
            self.discontinuous |= names
            warnings.warn(
                f"values of {quote_names(names)}, which have a pathwise gradient, determine the control flow (if, "
                "item(), an index): the pathwise gradient is biased, since the program is discontinuous; wrap the "
                "distribution of the guide in NonReparameterized of zoo.inference.elbo",
                stacklevel=2,
            )
        if plates := run.guide_only_plates - self.guide_only_plates:
            self.guide_only_plates |= plates
            warnings.warn(
                f"the guide has plates that the model does not have: {quote_names(plates)}; use plates of the same "
                "names in both",
                stacklevel=2,
            )

    def _warn_variance(self, run: Run, sites: list[Site]) -> None:
        """Warn once about sites with a score outside plates, and log later ones: a Markov chain may have a hundred."""
        if not sites:
            return
        first, *others = (site.name for site in sites)
        if self.warned_of_variance:
            logger.info("also outside every plate: %s", ", ".join([first, *others]))
            return
        self.warned_of_variance = True
        more = f" and {len(others) - MAX_NAMES} more" if len(others) > MAX_NAMES else ""
        further = f". The same applies to {', '.join(map(repr, others[:MAX_NAMES]))}{more}" if others else ""
        warnings.warn(
            f"{_describe(sites[0])} has no pathwise gradient and is outside every plate: its score is multiplied with "
            f"the sum of all {_num_log_probs(run, first)} log-probabilities that it influences, so its gradient has a "
            "high variance; use more particles, a distribution with rsample, or a plate if its elements are "
            f"independent{further}",
            HighVarianceWarning,
            stacklevel=2,
        )


def _is_unplated(site: Site) -> bool:
    return site.density.score is not None and all(plate.name == PARTICLES for plate in site.plates)


def _latent_sites(run: Run) -> list[Site]:
    return [site for site in run.guide.values() if not site.observed]


def _signatures(run: Run, name: str) -> set[Signature]:
    """Return what is checked of a site in guide and model; if it is unchanged, the site is still valid."""
    return {
        (program, name, type(x), type(innermost(x)), site.density.score is None, x.batch_shape, site.value.shape)
        for program, sites in (("guide", run.guide), ("model", run.model))
        if (site := sites.get(name)) is not None
        for x in [site.distribution]
    }


def _describe(site: Site) -> str:
    return describe_site(site.name, site.distribution)


def _num_log_probs(run: Run, name: str) -> int:
    """Return the number of log-probabilities that each element of a site influences."""
    pairs = zip([*run.guide.values(), *run.model.values()], sum(run.dependencies(), ()), strict=True)
    return sum(
        site.density.log_prob.numel() // math.prod(plate.size for plate in sources[name])
        for site, sources in pairs
        if name in sources
    )


def check_match(run: Run) -> None:
    """Raise an error if the sites of model and guide do not match, or an observed site is not allowed."""
    for name, site in run.guide.items():
        auxiliary = site.infer.get("is_auxiliary")
        if site.observed and not auxiliary:
            raise ValueError(f"the guide observes site {name!r}; only the model may, so remove obs= in the guide")
        if site.observed and site.density.score is not None:
            if isinstance(site.distribution, Unit):
                raise ValueError(
                    f"the factor {name!r} of the guide has has_rsample=False; write it as a distribution instead"
                )
            raise ValueError(
                f"the guide observes {describe_site(name, site.distribution)}, so nothing is sampled, and the "
                "score function cannot estimate the gradient of its log-probability; add the log-probability with "
                "pyro.factor(..., has_rsample=True) instead"
            )
        if name in run.model and run.model[name].observed:
            raise ValueError(f"the guide samples site {name!r}, which the model observes; remove it from the guide")
        if name not in run.model and not auxiliary:
            raise ValueError(
                f"the guide samples site {name!r}, which the model does not have; remove it, correct its name, or add "
                "infer={'is_auxiliary': True}"
            )
    missing = [name for name, site in run.model.items() if not site.observed and name not in run.guide]
    if missing:
        enumerated = any(run.model[name].infer.get("enumerate") for name in missing)
        raise ValueError(
            f"the model samples {quote_names(missing)}, which the guide does not; sample it in the guide, or observe "
            "it in the model"
            + (" (a site marked for enumeration is summed out only by pyro.infer.TraceEnum_ELBO)" if enumerated else "")
        )


def check_shapes(guide: Site, model: Site) -> None:
    """Raise an error if the shapes of a latent variable differ, or its value is outside the model's support."""
    pairs = (
        ("an event", guide.distribution.event_shape, model.distribution.event_shape),
        ("a batch", *(strip_leading_ones(site.distribution.batch_shape) for site in (guide, model))),
    )
    for what, shape, other in pairs:
        if shape != other:
            raise ValueError(
                f"{describe_site(guide.name, guide.distribution)} has {what} of shape {tuple(shape)} in the guide and "
                f"of {tuple(other)} in the model; use the same plates and the same to_event in both"
            )
    problem = diagnose_value(model.name, model.distribution, model.value, observed=False)
    if problem is not None:
        raise ValueError(problem)


def strip_leading_ones(shape: torch.Size) -> torch.Size:
    return shape[next((i for i, size in enumerate(shape) if size > 1), len(shape)) :]


def check_data(site: Site) -> None:
    """Raise an error if the data of a site are broadcast along a dimension that is not a plate.

    For example, data of shape ``(5,)`` with a distribution of batch shape ``(5, 1)`` would count each datum 5 times.
    """
    batch = site.density.log_prob.shape
    data = site.value.shape[: site.value.ndim - len(site.distribution.event_shape)]
    plates = {plate.dim for plate in site.plates}
    for dim in range(-len(batch), 0):
        if batch[dim] > 1 and (-dim > len(data) or data[dim] == 1) and dim not in plates:
            raise ValueError(
                f"the data of {describe_site(site.name, site.distribution)} have batch shape {tuple(data)} and their "
                f"log-probability {tuple(batch)}, and each datum would count {batch[dim]} times; use a "
                "distribution with the shape of the data, or a pyro.plate for the dimension"
            )


def check_score(site: Site) -> None:
    """Raise an error if the score-function gradient of a site would be biased."""
    if site.density.score is None:
        return
    parts = list(nested_distributions(site.distribution))
    if (wrong := sampling_defect(parts)) is not None:
        raise ValueError(f"{describe_site(site.name, site.distribution)} in the guide {wrong}")
    point = innermost(site.distribution)
    if support_depends_on_parameters(site.distribution) or (isinstance(point, Delta) and point.v.requires_grad):
        raise ValueError(
            f"the support of {describe_site(site.name, point)} in the guide depends on its parameters, which the score "
            "function does not account for; use its rsample, not under torch.no_grad(), or another distribution"
        )
    if any(map(clamps_probability, parts)):
        raise ValueError(
            f"a probability of {describe_site(site.name, point)} in the guide is 0 or 1, where torch's log-probability "
            "has no gradient; pass logits, or keep the probabilities away from 0 and 1"
        )
    if isinstance(point, Delta) and point.log_density.requires_grad:
        raise ValueError(
            f"{describe_site(site.name, point)} in the guide has a log_density with gradient, whose expectation is not "
            "0 as for a score; use its rsample, not under torch.no_grad()"
        )


def check_finite(bound: float, loss: float, runs: Sequence[Run], step: int) -> None:
    """Raise ``NonFiniteELBOError``, naming the site, if the bound or its surrogate loss is not finite."""
    if math.isfinite(bound) and math.isfinite(loss):
        return
    is_bound = not math.isfinite(bound)
    problem = f"the ELBO is {bound}" if is_bound else f"the loss that has the ELBO's gradient is {loss}"
    for program, site in all_sites(runs):
        if bool(site.density.log_prob.isfinite().all()):
            continue
        cause = diagnose_value(site.name, site.distribution, site.value, site.observed)
        cause = cause or diagnose_parameters(site.distribution)
        where = f"the log-probability of {describe_site(site.name, site.distribution)} in the {program} is not finite"
        raise NonFiniteELBOError(problem, step, f"{where}; {cause}" if cause else where)
    raise NonFiniteELBOError(
        problem, step, "the sum of its terms is too large" if is_bound else "a baseline is not finite"
    )


def check_gradients(parameters: Mapping[str, Tensor], retrace: Callable[[], Sequence[Run]], step: int) -> None:
    """Raise ``NonFiniteELBOError`` if a gradient is not finite, naming the site, which needs another run."""
    # A sum is an order of magnitude faster than a check of each element.
    suspects = {name: x for name, x in parameters.items() if x.grad is not None and not math.isfinite(x.grad.sum())}
    nonfinite = {name: x for name, x in suspects.items() if not bool(x.grad.isfinite().all())}  # type: ignore[union-attr]
    if nonfinite:
        reason = diagnose_gradient(list(nonfinite.values()), retrace())
        problem = f"the gradient of {quote_names(nonfinite)} is not finite"
        raise NonFiniteELBOError(problem, step, reason, contrast=", though the ELBO is finite")


def diagnose_gradient(parameters: Sequence[Tensor], runs: Sequence[Run]) -> str:
    """Return a sentence on the first site whose log-probability has a gradient that is not finite; empty if none."""
    for program, site in all_sites(runs):
        log_prob = site.density.log_prob
        if not log_prob.requires_grad:
            continue
        gradients = torch.autograd.grad(log_prob.sum(), parameters, retain_graph=True, allow_unused=True)
        if all(bool(gradient.isfinite().all()) for gradient in gradients if gradient is not None):
            continue
        cause = diagnose_value(site.name, site.distribution, site.value, site.observed)
        cause = cause or "check for a root, logarithm or division at 0, possibly hidden by a mask or torch.where"
        where = f"the log-probability of {describe_site(site.name, site.distribution)} in the {program}"
        return f"the gradient of {where} is not finite; {cause}"
    return ""
