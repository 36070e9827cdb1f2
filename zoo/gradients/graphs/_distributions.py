import functools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Categorical,
    ContinuousBernoulli,
    Distribution,
    GeneralizedPareto,
    Geometric,
    Independent,
    Laplace,
    LKJCholesky,
    TransformedDistribution,
    Uniform,
    constraints,
)
from torch.distributions.constraints import Constraint, is_dependent
from torch.distributions.relaxed_bernoulli import LogitRelaxedBernoulli
from torch.distributions.relaxed_categorical import ExpRelaxedCategorical
from torch.distributions.transforms import Transform

OWN = ("torch.distributions.",)
# Of what a distribution keeps: sizes, flags. A tuple, since isinstance is slow with unions.
TELLS_NOTHING = (int, float, str, tuple, type(None))

MADE_OF_UNIFORM = (
    *(Uniform, Geometric, Laplace, GeneralizedPareto, ContinuousBernoulli),
    *(LogitRelaxedBernoulli, ExpRelaxedCategorical),
)
"""Distributions that compute a draw from uniform numbers; others, as Gumbel, are transformed from these."""


def tensors_of(distribution: Distribution, packages: tuple[str, ...] = OWN) -> list[Tensor] | None:
    """Find all that a distribution is computed from; None if it may use what it does not show.

    Args:
        distribution: whose class keeps all that it uses as attributes, if it comes from one of the packages.
        packages: with a dot at the end.
    """
    if not type(distribution).__module__.startswith(packages):
        return None
    tensors = []
    for part in vars(distribution).values():
        if isinstance(part, Tensor):
            tensors.append(part)
        elif isinstance(part, Distribution):
            if (inner := tensors_of(part, packages)) is None:
                return None
            tensors += inner
        elif not (isinstance(part, TELLS_NOTHING) or (isinstance(part, list) and all(map(is_constant, part)))):
            return None
    return tensors


def is_constant(part: object) -> bool:
    """Tell whether something is a transform that has no parameters and remembers nothing."""
    if not (isinstance(part, Transform) and type(part).__module__.startswith(OWN)) or part._cache_size:
        return False
    return all(isinstance(held, TELLS_NOTHING) for name, held in vars(part).items() if name != "_inv")


def check_sample(what: str, distribution: Distribution, value: Tensor, pathwise: bool) -> None:
    """Raise an error if a value is not one draw of a distribution, or its density has not the whole gradient."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{what} must be drawn as a tensor, got {type(value).__name__}")
    if not pathwise and support_depends_on_parameters(distribution):
        raise ValueError(
            f"the support of {what} ({type(distribution).__name__}) moves with its parameters, and that the "
            "score function cannot see; a pathwise gradient can"
        )
    parts = list(nested_distributions(distribution))
    if not pathwise and any(map(clamps_probability, parts)):
        raise ValueError(
            f"a probability of {what} ({type(distribution).__name__}) is 0 or 1, and there torch's log-probability has "
            "no gradient; pass logits, or keep the probabilities apart from 0 and 1"
        )
    if (wrong := sampling_defect(parts)) is not None:
        raise ValueError(f"{what} ({type(distribution).__name__}) {wrong}")
    shape = distribution.batch_shape + distribution.event_shape
    if value.shape != shape:
        raise ValueError(f"{what} was drawn with shape {tuple(value.shape)}; its distribution has {tuple(shape)}")


def sampling_defect(parts: Iterable[Distribution]) -> str | None:
    """Say that the draws of a distribution do not follow its log-probability; None if nothing is known against them.

    Args:
        parts: of the distribution, see ``parts_of``.

    In torch 2.14 at least, the squared length of row ``k`` of a draw of LKJCholesky (before the diagonal,
    counted from 0) follows ``Beta(k - 1/2, ·)`` where its density has ``Beta(k/2, ·)``: equal for two rows only. The
    score has another expectation than 0 then, -0.22 for three rows and a concentration of 1.5.

    Functions of uniform numbers in half precision have an atom where these are 0, and no tails: the mean of
    ``Geometric(0.9)`` is 0.19 in bfloat16, for 0.11.
    """
    for part in parts:
        if isinstance(part, LKJCholesky) and part.dim > 2:
            return (
                "is not drawn from the distribution that its log_prob tells of if it has more than 2 rows, a fault of "
                "torch's LKJCholesky; use "
                "TransformedDistribution(Normal(loc, scale).to_event(1), CorrCholeskyTransform())"
            )
        if isinstance(part, MADE_OF_UNIFORM) and any(map(is_half, vars(part).values())):
            return (
                "is made of uniform numbers that torch draws in half precision, of which bfloat16 has 256, and does "
                "not follow its log_prob; give it parameters in float32"
            )
    return None


def nested_distributions(distribution: Distribution) -> Iterator[Distribution]:
    """Go through a distribution and those that it is made of: a base, the components of a mixture."""
    yield distribution
    for part in vars(distribution).values():
        if isinstance(part, Distribution):
            yield from nested_distributions(part)


def is_half(part: object) -> bool:
    """Return whether something is a tensor of half precision."""
    return isinstance(part, Tensor) and part.dtype in (torch.float16, torch.bfloat16)


def support_of(distribution: Distribution) -> Constraint | None:
    """Find the support of a distribution; None where it tells none."""
    try:
        return distribution.support
    except NotImplementedError:
        return None


def in_support(distribution: Distribution, value: Tensor) -> bool:
    """Tell whether a distribution may take a value; where it does not know, it may."""
    support = support_of(distribution)
    return support is None or is_dependent(support) or bool(support.check(value).all())


def support_depends_on_parameters(distribution: Distribution) -> bool:
    """Tell whether the values that a distribution may take depend on what needs a gradient."""
    if is_point_mass(distribution) and distribution.mean.requires_grad:
        return True
    if not isinstance(distribution, TransformedDistribution) or has_support(distribution):
        base = vars(distribution).get("base_dist")  # of Independent, and of others that repeat, mask or wrap
        return has_moving_bounds(support_of(distribution)) or (
            isinstance(base, Distribution) and support_depends_on_parameters(base)
        )
    support = support_of(distribution.base_dist)
    for transform in distribution.transforms:
        parameters = [part for part in vars(transform).values() if isinstance(part, Tensor)]
        if any(parameter.requires_grad for parameter in parameters) and not is_unbounded(support):
            return True
        support = transform.codomain
    return support_depends_on_parameters(distribution.base_dist)


def is_point_mass(distribution: Distribution) -> bool:
    """Tell whether a distribution, none of torch's own or made of one, has a single value, as Pyro's ``Delta``."""
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    if comes_from_torch(type(distribution).__mro__) or distribution.has_enumerate_support:
        return False  # told before the variance, which may be a large tensor
    try:
        variance = distribution.variance
    except NotImplementedError:
        return False
    return bool((variance == 0).all()) and variance.numel() > 0


@functools.cache
def comes_from_torch(classes: tuple[type, ...]) -> bool:
    """Return whether one of the classes that a distribution inherits from is a distribution of torch's own."""
    return any(kind.__module__.startswith(OWN) for kind in classes if kind is not Distribution)


def clamps_probability(distribution: Distribution) -> bool:
    """Return whether torch clamps a probability that needs a gradient, and so cuts this off; not those of its parts.

    Where the probability hardly changes with its parameters, as that of a saturated sigmoid, nothing is lost.
    """
    probs: Any = getattr(distribution, "_param", None)
    if probs is None or not probs.requires_grad or id(vars(distribution).get("probs")) != id(probs):
        return False
    eps = torch.finfo(probs.dtype).eps
    with torch.no_grad():
        low = probs < eps
        clamped = low if isinstance(distribution, Categorical) else low | (probs > 1 - eps)
        if not bool(clamped.any()):
            return False
    weight = clamped * torch.arange(1, 1 + probs.numel(), dtype=probs.dtype, device=probs.device).reshape(probs.shape)
    slopes = torch.autograd.grad((weight * probs).sum(), leaves_of(probs), retain_graph=True, allow_unused=True)
    return any(bool((slope.abs() > eps**0.5).any()) for slope in slopes if slope is not None)


def leaves_of(tensor: Tensor) -> list[Tensor]:
    """Return the leaves that a tensor's gradient reaches."""
    if tensor.grad_fn is None:
        return [tensor]
    leaves, seen, waiting = [], set(), [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        waiting += [following for following, _ in node.next_functions if following is not None]
    return leaves


def has_support(distribution: TransformedDistribution) -> bool:
    """Tell whether a support was written down, not found from the transforms."""
    return type(distribution).support is not TransformedDistribution.support


def has_moving_bounds(support: Constraint | None) -> bool:
    """Tell whether a bound of a support needs a gradient."""
    bounds = [] if support is None else vars(support).values()
    return any(
        bound.requires_grad if isinstance(bound, Tensor) else isinstance(bound, Constraint) and has_moving_bounds(bound)
        for bound in bounds
    )


def is_unbounded(support: Constraint | None) -> bool:
    """Tell whether a support has no bounds."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is None or support is constraints.real or support is constraints.real_vector
