"""The control variate of black-box variational inference, computed from the scores of a site's parameters."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Categorical, Distribution

from zoo.gradients import Reinforce, ReinforceOutput
from zoo.gradients.control_variates import ControlVariate, optimal_scaling
from zoo.gradients.graphs._distributions import nested_distributions
from zoo.inference.elbo._densities import guide_density, visible_tensors
from zoo.inference.elbo._downstream_costs import ScoreFunctionTerm
from zoo.inference.elbo._messages import describe_site
from zoo.inference.elbo._sites import Site


def control_variate_output(
    reinforce: Reinforce, baseline: ControlVariate, score: ScoreFunctionTerm, num_particles: int
) -> ReinforceOutput:
    """Estimate a site's part of the gradient with the control variate of black-box variational inference.

    With ``scaling="parameter"``, there is a scaling for each parameter ``λ`` of each element of the batch, and the
    log-probability is replaced by ``λ · ∇_λ log q``, which has the same gradient. Otherwise, all parameters of
    an element share one scaling. Particles after the first ``num_particles`` are used for the scaling only.
    """
    value, gradient = stacked_parameters(score.sites)
    log_prob, signal, mask = score.log_prob, score.signal, score.mask
    if baseline.scaling == "parameter":
        log_prob, signal = value * gradient, expand_to_parameters(signal, value)
        mask = None if mask is None else expand_to_parameters(mask, value)
    else:
        gradient = reshape_to_plates(gradient, signal.shape)
    if baseline.num_extra_samples:
        extra = slice(num_particles, num_particles + baseline.num_extra_samples)
        context = optimal_scaling(gradient[extra], signal[extra]).expand(num_particles, *signal.shape[1:])
    else:
        context = gradient[:num_particles]
    mask = None if mask is None else mask[:num_particles]
    output: ReinforceOutput = reinforce(log_prob[:num_particles], signal[:num_particles], context, mask)
    return output


def expand_to_parameters(x: Tensor, value: Tensor) -> Tensor:
    """Expand a tensor of shape ``(particles, *plates)`` to the shape of parameters."""
    num_particles, *plates = x.shape
    batch = (1,) * (value.ndim - 2 - len(plates))
    return x.reshape(num_particles, *batch, *plates, 1).expand_as(value)


def reshape_to_plates(gradient: Tensor, shape: torch.Size) -> Tensor:
    """Reshape gradients of parameters to ``(particles, *plates, parameters)``; ``shape`` is ``(particles, *plates)``.

    Batch dimensions that are not plates are counted among the parameters.
    """
    plates, batch = shape[1:], gradient.shape[1:-1]
    leading = len(batch) - len(plates)
    grouped = [1 + i for i in range(len(batch)) if i < leading or plates[i - leading] == 1]
    return gradient.movedim(grouped, list(range(-1 - len(grouped), -1))).reshape(*shape, -1)


class Parameters(NamedTuple):
    """Parameters of each element of the batch of a site's distribution."""

    value: Float[Tensor, "*batch parameters"]
    """With gradient."""
    score: Float[Tensor, "*batch parameters"]
    """``∇ log q(z)`` with respect to the parameters, whose expectation is 0."""


def stacked_parameters(sites: Sequence[Site | None]) -> Parameters:
    """Return a site's parameters in all particles, ``(particles, *batch, parameters)``; 0 where it was not sampled."""
    each = [None if site is None else site_parameters(site) for site in sites]
    if len(each) == 1 and each[0] is not None:  # may be vectorized
        return each[0]
    shapes = {one.value.shape for one in each if one is not None}
    if len(shapes) > 1:
        site = next(site for site in sites if site is not None)
        raise ValueError(
            f"the parameters of {describe_site(site.name, site.distribution)} differ in number between particles, so "
            "the optimal scaling cannot be estimated; use another baseline for this site"
        )
    blank = next(torch.zeros_like(one.value) for one in each if one is not None)
    return Parameters(
        torch.stack([blank if one is None else one.value for one in each]),
        torch.stack([blank if one is None else one.score for one in each]),
    )


def site_parameters(site: Site) -> Parameters:
    """Return the parameters of a site's distribution, each of a single batch element, and the score of each."""
    batch = site.distribution.batch_shape
    try:  # a new distribution, since the old one may hold both a parameter and what was computed from it
        distribution = site.distribution.expand(batch)
    except (NotImplementedError, ValueError) as error:  # no expand(), or one that fails after sampling
        raise ValueError(_hidden_parameters_error(site)) from error
    if distribution.has_rsample != site.distribution.has_rsample:
        distribution.has_rsample = site.distribution.has_rsample  # not preserved by expand()
    for part in nested_distributions(distribution):
        _drop_computed_parameters(part)
    # Where part of the gradient is pathwise, the score depends on how the value was drawn, not on the value alone.
    owners = _parameter_owners(distribution) if site.density.entropy is None else {}
    gradients: Sequence[Tensor | None] = ()
    if owners:
        log_prob = guide_density(distribution, site.value).score
        gradients = torch.autograd.grad(log_prob.sum(), list(owners), retain_graph=True, allow_unused=True)  # type: ignore[union-attr]
    found = [
        (x, center(gradient, x, owner))
        for (x, owner), gradient in zip(owners.items(), gradients, strict=False)
        if gradient is not None
    ]
    if not found or any(x.shape[: len(batch)] != batch for x, _ in found):
        raise ValueError(_hidden_parameters_error(site))
    value, score = (torch.cat([x.reshape(*batch, -1) for x in parts], -1) for parts in zip(*found, strict=True))
    return Parameters(torch.where(value.isfinite(), value, 0), score)  # a logit of -inf has no gradient


def _hidden_parameters_error(site: Site) -> str:
    return (
        f"{describe_site(site.name, site.distribution)} does not expose the parameters of each element of its batch, "
        "so the optimal scaling cannot be estimated; use another baseline for this site"
    )


def _drop_computed_parameters(distribution: Distribution) -> None:
    """Drop the probabilities that a distribution computed from its logits, or the reverse; they are computed again.

    Probabilities and logits are one parameter. A continuous Bernoulli distribution uses both, and the score of one of
    them alone has a non-zero expectation.
    """
    given = vars(distribution).get("_param")
    for name in ("probs", "logits"):
        if given is not None and vars(distribution).get(name, given) is not given:
            del vars(distribution)[name]


def _parameter_owners(distribution: Distribution) -> Mapping[Tensor, Distribution]:
    """Return the parameters with gradient and the distributions that hold them.

    The mapping is empty if the distribution also holds tensors computed from its parameters, which would then count
    twice.
    """
    owners: dict[Tensor, Distribution] = {}
    if visible_tensors(distribution) is None:
        return owners
    for part in nested_distributions(distribution):
        tensors = {name: x for name, x in vars(part).items() if isinstance(x, Tensor) and x.requires_grad}
        arguments = {x: part for name, x in tensors.items() if _is_argument(name, part)}
        if set(tensors.values()) - set(arguments):
            return {}
        owners |= arguments
    return owners


def _is_argument(name: str, distribution: Distribution) -> bool:
    """Return whether a distribution, or a class that it inherits from, has an argument of this name."""
    constraints = (vars(kind).get("arg_constraints") for kind in type(distribution).__mro__)
    return any(name in named for named in constraints if isinstance(named, Mapping))


def center(gradient: Tensor, parameter: Tensor, owner: Distribution) -> Tensor:
    """Return a gradient whose expectation is 0.

    A categorical distribution stores normalized parameters, and a change of one of them alone breaks the normalization.
    The score is therefore taken with respect to the parameters before normalization.
    """
    if not isinstance(owner, Categorical):
        return gradient
    if parameter is vars(owner).get("logits"):
        return gradient - parameter.detach().exp() * gradient.sum(-1, keepdim=True)
    return gradient - (gradient * parameter.detach()).sum(-1, keepdim=True)
