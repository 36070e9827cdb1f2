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

TORCH_DISTRIBUTIONS = ("torch.distributions.",)
# Types of attributes that are no parameters, but sizes and flags. A tuple, since isinstance is slow with unions.
_METADATA_TYPES = (int, float, str, tuple, type(None))
# Sampled as a function of uniform random numbers. Others, such as Gumbel, are transforms of one of these.
_SAMPLED_FROM_UNIFORM = (
    *(Uniform, Geometric, Laplace, GeneralizedPareto, ContinuousBernoulli),
    *(LogitRelaxedBernoulli, ExpRelaxedCategorical),
)


def tensors_of(distribution: Distribution, packages: tuple[str, ...] = TORCH_DISTRIBUTIONS) -> list[Tensor] | None:
    """Return all tensors that a distribution is computed from; None if it may use tensors that are not its attributes.

    Classes of ``packages`` (prefixes of module names, with a dot at the end) use only tensors that are attributes.
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
        elif not (
            isinstance(part, _METADATA_TYPES) or (isinstance(part, list) and all(map(_is_constant_transform, part)))
        ):
            return None
    return tensors


def _is_constant_transform(part: object) -> bool:
    """Return whether an object is a transform without parameters and without cache."""
    if not (isinstance(part, Transform) and type(part).__module__.startswith(TORCH_DISTRIBUTIONS)) or part._cache_size:
        return False
    return all(isinstance(held, _METADATA_TYPES) for name, held in vars(part).items() if name != "_inv")


def check_sample(what: str, distribution: Distribution, value: Tensor, pathwise: bool) -> None:
    """Raise an error if a value is no sample of a distribution, or its log-probability has the wrong gradient."""
    described = f"{what} ({type(distribution).__name__})"
    if not isinstance(value, Tensor):
        raise ValueError(f"{what} must be drawn as a tensor, got {type(value).__name__}")
    if not pathwise and support_depends_on_parameters(distribution):
        raise ValueError(
            f"the support of {described} depends on its parameters, which the score function ignores; use a pathwise "
            "gradient"
        )
    parts = list(nested_distributions(distribution))
    if not pathwise and any(map(clamps_probability, parts)):
        raise ValueError(
            f"a probability of {described} is 0 or 1, where torch clamps it and its log-probability has no gradient; "
            "pass logits, or keep the probabilities away from 0 and 1"
        )
    if (defect := sampling_defect(parts)) is not None:
        raise ValueError(f"{described} {defect}")
    shape = distribution.batch_shape + distribution.event_shape
    if value.shape != shape:
        raise ValueError(f"{what} was drawn with shape {tuple(value.shape)}; its distribution has {tuple(shape)}")


def sampling_defect(parts: Iterable[Distribution]) -> str | None:
    """Return why samples of a distribution do not follow its log-probability; None if no defect is known.

    In torch 2.14 at least, the squared norm of row ``k`` of a sample of LKJCholesky (before the diagonal, counted from
    0) follows ``Beta(k - 1/2, ·)`` where its density has ``Beta(k/2, ·)``: equal for two rows only. The expected score
    is then not 0, but -0.22 for three rows and a concentration of 1.5.

    Functions of uniform numbers in half precision have an atom where these are 0, and no tails: the mean of
    ``Geometric(0.9)`` is 0.19 in bfloat16 instead of 0.11.
    """
    for part in parts:
        if isinstance(part, LKJCholesky) and part.dim > 2:
            return (
                "does not follow its log_prob if it has more than 2 rows, a bug of torch's LKJCholesky; use "
                "TransformedDistribution(Normal(loc, scale).to_event(1), CorrCholeskyTransform())"
            )
        if isinstance(part, _SAMPLED_FROM_UNIFORM) and any(map(_is_half, vars(part).values())):
            return (
                "is sampled from uniform numbers that torch draws in half precision, of which bfloat16 has 256, and "
                "does not follow its log_prob; use parameters in float32"
            )
    return None


def nested_distributions(distribution: Distribution) -> Iterator[Distribution]:
    """Yield a distribution and those in it: its base, the components of a mixture."""
    yield distribution
    for part in vars(distribution).values():
        if isinstance(part, Distribution):
            yield from nested_distributions(part)


def _is_half(part: object) -> bool:
    return isinstance(part, Tensor) and part.dtype in (torch.float16, torch.bfloat16)


def support_of(distribution: Distribution) -> Constraint | None:
    """Return the support of a distribution; None if it declares none."""
    try:
        return distribution.support
    except NotImplementedError:
        return None


def in_support(distribution: Distribution, value: Tensor) -> bool:
    """Return whether a value lies in the support of a distribution; True if this is unknown."""
    support = support_of(distribution)
    return support is None or is_dependent(support) or bool(support.check(value).all())


def support_depends_on_parameters(distribution: Distribution) -> bool:
    """Return whether the support of a distribution depends on tensors that require gradients."""
    if is_point_mass(distribution) and distribution.mean.requires_grad:
        return True
    if (
        not isinstance(distribution, TransformedDistribution)
        or type(distribution).support is not TransformedDistribution.support  # declared instead of derived
    ):
        base = vars(distribution).get("base_dist")  # Independent has one, as have distributions that mask or repeat
        in_base = isinstance(base, Distribution) and support_depends_on_parameters(base)
        return _has_learned_bounds(support_of(distribution)) or in_base
    support = support_of(distribution.base_dist)
    for transform in distribution.transforms:
        parameters = [part for part in vars(transform).values() if isinstance(part, Tensor)]
        if any(parameter.requires_grad for parameter in parameters) and not _is_unbounded(support):
            return True
        support = transform.codomain
    return support_depends_on_parameters(distribution.base_dist)


def is_point_mass(distribution: Distribution) -> bool:
    """Return whether a distribution has a single value, as Pyro's ``Delta``; False for torch's and their subclasses."""
    distribution = base_distribution(distribution)
    if _derives_from_torch(type(distribution).__mro__) or distribution.has_enumerate_support:
        return False  # without computing the variance, which may be a large tensor
    try:
        variance = distribution.variance
    except NotImplementedError:
        return False
    return bool((variance == 0).all()) and variance.numel() > 0


def base_distribution(distribution: Distribution) -> Distribution:
    """Return the distribution of the elements of an ``Independent``."""
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution


@functools.cache
def _derives_from_torch(classes: tuple[type, ...]) -> bool:
    return any(cls.__module__.startswith(TORCH_DISTRIBUTIONS) for cls in classes if cls is not Distribution)


def clamps_probability(distribution: Distribution) -> bool:
    """Return whether torch clamps a probability that requires a gradient, which is then lost.

    False where the gradient is negligible anyway, as that of a saturated sigmoid. Nested distributions are not checked.
    """
    probs: Any = getattr(distribution, "_param", None)  # probabilities or logits, as they were passed
    if probs is None or not probs.requires_grad or id(vars(distribution).get("probs")) != id(probs):
        return False
    eps = torch.finfo(probs.dtype).eps
    with torch.no_grad():
        low = probs < eps
        clamped = low if isinstance(distribution, Categorical) else low | (probs > 1 - eps)
        if not bool(clamped.any()):
            return False
    # Distinct weights, so that gradients of different elements do not cancel.
    weight = clamped * torch.arange(1, 1 + probs.numel(), dtype=probs.dtype, device=probs.device).reshape(probs.shape)
    gradients = torch.autograd.grad((weight * probs).sum(), _leaves_of(probs), retain_graph=True, allow_unused=True)
    return any(bool((gradient.abs() > eps**0.5).any()) for gradient in gradients if gradient is not None)


def _leaves_of(tensor: Tensor) -> list[Tensor]:
    """Return the leaves of a tensor's autograd graph."""
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
        waiting += [parent for parent, _ in node.next_functions if parent is not None]
    return leaves


def _has_learned_bounds(support: Constraint | None) -> bool:
    for bound in [] if support is None else vars(support).values():
        if isinstance(bound, Tensor) and bound.requires_grad:
            return True
        if isinstance(bound, Constraint) and _has_learned_bounds(bound):
            return True
    return False


def _is_unbounded(support: Constraint | None) -> bool:
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is None or support is constraints.real or support is constraints.real_vector
