import torch
from pyro.distributions import Delta, Unit
from torch.distributions import Distribution

from zoo.gradients.graphs._distributions import (
    clamps_probability,
    nested_distributions,
    sampling_defect,
    support_depends_on_parameters,
)
from zoo.gradients.graphs._provenance.names import quote_names
from zoo.inference.elbo._messages import innermost, site_of, what_is_wrong
from zoo.inference.elbo._sites import Run, Site


def check_match(run: Run) -> None:
    """Raise an error if a guide's sites are not those that its model needs.

    Raises:
        ValueError: a site is in one alone, or observed where it should not be.
    """
    for name, site in run.guide.items():
        auxiliary = site.infer.get("is_auxiliary")
        if site.observed and not auxiliary:
            raise ValueError(f"the guide observes site {name!r}; only the model may, so leave obs= out of the guide")
        if site.observed and site.density.score is not None:
            if isinstance(site.distribution, Unit):
                raise ValueError(
                    f"the factor {name!r} of the guide has has_rsample=False; write it as a distribution instead"
                )
            raise ValueError(
                f"the guide observes {site_of(name, site.distribution)}, so that nothing is drawn and no score has its "
                "gradient; add its log-probability by pyro.factor(..., has_rsample=True) instead"
            )
        if name in run.model and run.model[name].observed:
            raise ValueError(f"the guide samples site {name!r}, which the model observes; take it out of the guide")
        if name not in run.model and not auxiliary:
            raise ValueError(
                f"the guide samples site {name!r}, which the model has not; take it out, correct its name, or mark it "
                "with infer={'is_auxiliary': True}"
            )
    missing = [name for name, site in run.model.items() if not site.observed and name not in run.guide]
    if missing:
        marked = any(run.model[name].infer.get("enumerate") for name in missing)
        raise ValueError(
            f"the model samples {quote_names(missing)}, which the guide does not; sample it in the guide, or observe "
            "it in the model"
            + (" (a site marked for enumeration is summed out by pyro.infer.TraceEnum_ELBO alone)" if marked else "")
        )


def check_shapes(of_guide: Site, of_model: Site) -> None:
    """Raise an error if guide and model do not agree on what a latent variable is.

    Raises:
        ValueError: its batch or its event has another shape, or the guide's values are not in the model's support.
    """
    pairs = (
        ("an event", of_guide.distribution.event_shape, of_model.distribution.event_shape),
        ("a batch", *(without_leading_ones(one.distribution.batch_shape) for one in (of_guide, of_model))),
    )
    for what, ours, theirs in pairs:
        if ours != theirs:
            raise ValueError(
                f"{site_of(of_guide.name, of_guide.distribution)} has {what} of shape {tuple(ours)} in the guide and "
                f"of {tuple(theirs)} in the model; use the same plates and the same to_event in both"
            )
    wrong = what_is_wrong(of_model.name, of_model.distribution, of_model.value, observed=False)
    if wrong is not None:
        raise ValueError(wrong)


def check_data(site: Site) -> None:
    """Raise an error if the data of an observed site are repeated along a dimension that no plate declares.

    So it is where data of shape ``(5,)`` meet a distribution of batch shape ``(5, 1)``: each datum would count 5 times.

    Raises:
        ValueError: they are.
    """
    batch = site.density.log_prob.shape
    data = site.value.shape[: site.value.ndim - len(site.distribution.event_shape)]
    declared = {plate.dim for plate in site.plates}
    for dim in range(-len(batch), 0):
        if batch[dim] > 1 and (-dim > len(data) or data[dim] == 1) and dim not in declared:
            raise ValueError(
                f"the data of {site_of(site.name, site.distribution)} have batch shape {tuple(data)} and their "
                f"log-probability {tuple(batch)}, so that each datum would count {batch[dim]} times; give the "
                "distribution the shape of the data, or declare the repetition by a pyro.plate"
            )


def check_support(site: Site) -> None:
    """Raise an error if a site has a score that does not have all of its gradient.

    Raises:
        ValueError: the values that the guide may draw move with parameters, or do not follow their log-probability.
    """
    if site.density.score is None:
        return
    parts = list(nested_distributions(site.distribution))
    if (wrong := sampling_defect(parts)) is not None:
        raise ValueError(f"{site_of(site.name, site.distribution)} in the guide {wrong}")
    if support_depends_on_parameters(site.distribution) or is_learned_point(site.distribution):
        raise ValueError(
            f"the support of {site_of(site.name, site.distribution)} in the guide moves with its parameters, and that "
            "the score function cannot see; use it with its rsample, not under torch.no_grad(), or another distribution"
        )
    if any(map(clamps_probability, parts)):
        raise ValueError(
            f"a probability of {site_of(site.name, site.distribution)} in the guide is 0 or 1, and there torch's "
            "log-probability has no gradient; pass logits, or keep the probabilities apart from 0 and 1"
        )
    point = innermost(site.distribution)
    if isinstance(point, Delta) and point.log_density.requires_grad:
        raise ValueError(
            f"{site_of(site.name, point)} in the guide has a log_density with a gradient, whose expectation is not 0 "
            "as a score's is; use it with its rsample, not under torch.no_grad()"
        )


def is_learned_point(distribution: Distribution) -> bool:
    """Return whether a distribution is a point mass whose place needs a gradient."""
    point = innermost(distribution)
    return isinstance(point, Delta) and point.v.requires_grad


def without_leading_ones(shape: torch.Size) -> torch.Size:
    """Shape without what broadcasting would add."""
    return shape[next((i for i, size in enumerate(shape) if size > 1), len(shape)) :]
