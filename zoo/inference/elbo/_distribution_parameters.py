from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Categorical, Distribution

from zoo.gradients.graphs._distributions import nested_distributions
from zoo.inference.elbo._densities import guide_density, tensors_shown
from zoo.inference.elbo._messages import site_of
from zoo.inference.elbo._sites import Site


class Parameters(NamedTuple):
    """Parameters of a site's distribution, of each element of its batch."""

    value: Float[Tensor, "*batch parameters"]
    """With its gradient."""
    score: Float[Tensor, "*batch parameters"]
    """``∇ log q(z)`` with respect to them; its expectation is 0."""


def parameters_of_all(sites: Sequence[Site | None]) -> Parameters:
    """Arrange a site's parameters in all particles, ``(particles, *batch, parameters)``; 0 where it was not drawn.

    Raises:
        ValueError: they cannot be found, or are not the same number in all particles.
    """
    each = [None if site is None else parameters_of(site) for site in sites]
    if len(each) == 1 and each[0] is not None:  # one run holds all particles
        return each[0]
    shapes = {one.value.shape for one in each if one is not None}
    if len(shapes) > 1:
        site = next(site for site in sites if site is not None)
        raise ValueError(
            f"{site_of(site.name, site.distribution)} has other parameters in other particles, so that an optimal "
            "scaling cannot be found for them; use another baseline for it"
        )
    blank = next(torch.zeros_like(one.value) for one in each if one is not None)
    return Parameters(
        torch.stack([blank if one is None else one.value for one in each]),
        torch.stack([blank if one is None else one.score for one in each]),
    )


def parameters_of(site: Site) -> Parameters:
    """Find the parameters of a site's distribution and the score of each.

    Raises:
        ValueError: they cannot be found, or elements of the batch share them.
    """
    batch = site.distribution.batch_shape
    try:  # a new distribution, as the old one may show a parameter together with what it has computed from it
        distribution = site.distribution.expand(batch)
    except (NotImplementedError, ValueError) as error:  # of what has no expand(), or one that fails after a draw
        raise ValueError(hidden_parameters(site)) from error
    if distribution.has_rsample != site.distribution.has_rsample:
        distribution.has_rsample = site.distribution.has_rsample  # which expanding forgets
    for part in nested_distributions(distribution):
        drop_computed(part)
    # Where part of the gradient is pathwise, the score depends on how the value was drawn, not on the value alone.
    owners = owners_of_parameters(distribution) if site.density.entropy is None else {}
    gradients: Sequence[Tensor | None] = ()
    if owners:
        log_prob = guide_density(distribution, site.value).score
        gradients = torch.autograd.grad(log_prob.sum(), list(owners), retain_graph=True, allow_unused=True)  # type: ignore[union-attr]
    found = [
        (x, centred(gradient, x, owner))
        for (x, owner), gradient in zip(owners.items(), gradients, strict=False)
        if gradient is not None
    ]
    if not found or any(x.shape[: len(batch)] != batch for x, _ in found):
        raise ValueError(hidden_parameters(site))
    value, score = (torch.cat([in_a_row(x, len(batch)) for x in parts], -1) for parts in zip(*found, strict=True))
    return Parameters(torch.where(value.isfinite(), value, 0), score)  # a logit of -inf, which nothing can move


def hidden_parameters(site: Site) -> str:
    """Say that a site's parameters cannot be found."""
    return (
        f"{site_of(site.name, site.distribution)} does not show the parameters of each element of its batch, so that "
        "an optimal scaling cannot be found for them; use another baseline for it"
    )


def drop_computed(distribution: Distribution) -> None:
    """Drop probabilities that a distribution keeps beside its logits, or the reverse, so that it computes them anew.

    Both together, as a continuous Bernoulli distribution uses them, are one parameter: the score of only one of the two
    has an expectation.
    """
    given = vars(distribution).get("_param")
    for name in ("probs", "logits"):
        if given is not None and vars(distribution).get(name, given) is not given:
            del vars(distribution)[name]


def owners_of_parameters(distribution: Distribution) -> Mapping[Tensor, Distribution]:
    """Find the parameters with a gradient, each with the distribution that holds it; none if it keeps anything else.

    What a distribution computes from its parameters and uses beside them would count them twice.
    """
    owners: dict[Tensor, Distribution] = {}
    if tensors_shown(distribution) is None:
        return owners
    for part in nested_distributions(distribution):
        held = {name: x for name, x in vars(part).items() if isinstance(x, Tensor) and x.requires_grad}
        own = {x: part for name, x in held.items() if is_argument(name, part)}
        if set(held.values()) - set(own):
            return {}
        owners |= own
    return owners


def is_argument(name: str, distribution: Distribution) -> bool:
    """Tell whether a distribution, or a more general one that it is a case of, is made from what has this name."""
    constraints = (vars(kind).get("arg_constraints") for kind in type(distribution).__mro__)
    return any(name in named for named in constraints if isinstance(named, Mapping))


def centred(gradient: Tensor, parameter: Tensor, owner: Distribution) -> Tensor:
    """Make a gradient one whose expectation is 0.

    A categorical distribution keeps its parameters normalised, and is none if only one of them moves. So the score is
    that of the parameters before they are normalised.
    """
    if not isinstance(owner, Categorical):
        return gradient
    if parameter is vars(owner).get("logits"):
        return gradient - parameter.detach().exp() * gradient.sum(-1, keepdim=True)
    return gradient - (gradient * parameter.detach()).sum(-1, keepdim=True)


def in_a_row(x: Tensor, batch_dims: int) -> Tensor:
    """Put all that an element of a batch has into one dimension."""
    return x.reshape(*x.shape[:batch_dims], -1)
