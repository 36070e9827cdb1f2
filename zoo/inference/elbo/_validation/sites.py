"""Checks of the sites of a run, and of the numbers computed from them."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from pyro.distributions import Delta, Unit
from torch import Tensor

from zoo.gradients.graphs._distributions import (
    clamps_probability,
    nested_distributions,
    sampling_defect,
    support_depends_on_parameters,
)
from zoo.gradients.graphs._provenance.names import quote_names
from zoo.inference.elbo._messages import (
    NonFiniteELBOError,
    describe_site,
    diagnose_parameters,
    diagnose_value,
    innermost,
)
from zoo.inference.elbo._sites import Run, Site, all_sites


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
                f"the guide observes {describe_site(name, site.distribution)}, so nothing is sampled and no score has "
                "its gradient; add its log-probability with pyro.factor(..., has_rsample=True) instead"
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
    """Return a shape without leading dimensions of size 1."""
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
                f"log-probability {tuple(batch)}, so that each datum would count {batch[dim]} times; use a "
                "distribution with the shape of the data, or a pyro.plate for the dimension"
            )


def check_score(site: Site) -> None:
    """Raise an error if the score of a site does not have the whole gradient."""
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
        reason = find_nonfinite_site(list(nonfinite.values()), retrace())
        problem = f"the gradient of {quote_names(nonfinite)} is not finite"
        raise NonFiniteELBOError(problem, step, reason, contrast=", though the ELBO is")


def find_nonfinite_site(parameters: Sequence[Tensor], runs: Sequence[Run]) -> str:
    """Return which site's log-probability has a gradient that is not finite; empty if there is none."""
    for program, site in all_sites(runs):
        log_prob = site.density.log_prob
        if not log_prob.requires_grad:
            continue
        gradients = torch.autograd.grad(log_prob.sum(), parameters, retain_graph=True, allow_unused=True)
        if all(bool(gradient.isfinite().all()) for gradient in gradients if gradient is not None):
            continue
        cause = diagnose_value(site.name, site.distribution, site.value, site.observed)
        cause = cause or "check for a root, logarithm or division at 0, possibly hidden by a mask or torch.where"
        return f"that of {describe_site(site.name, site.distribution)} in the {program} is not; {cause}"
    return ""
