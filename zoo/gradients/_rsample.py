"""Look in the graph of a log-probability for a value that still carries its own path to the parameters."""

from typing import Any

from torch import Tensor

NODES = 48  # that are looked at: a density is near the root, and the networks behind it are not
STEPS = 6  # from a value back to its noise, as through the exponential of a log-normal distribution
SAMPLERS = ("StandardGammaBackward0", "_DirichletBackward")


def is_reparameterized(log_prob: Tensor) -> bool:
    """Tell whether ``log_prob`` was taken of a value from ``rsample``, as far as its graph shows.

    The paths through value and parameters cancel: the score of ``loc + scale · ε`` under the distribution with that
    very ``loc`` is 0. Known by ``value - loc`` where the value was computed from the same ``loc`` and noise; by
    ``rate · (ε / rate)``; by ``(scale · ε - c)² / (2 scale²)`` and ``log(1 + ((scale · ε - c) / scale)²)`` where the
    scale alone is learned; and by ``(α - 1) log value`` of a value that a gamma or Dirichlet sampler made.

    Not known: values of uniform, Laplace and Student distributions of which the scale alone is learned, of Gumbel,
    Weibull, Pareto, Kumaraswamy, Fisher-Snedecor, continuous Bernoulli, relaxed, logistic-normal and Wishart
    distributions, and of flows. A graph does not tell theirs from the parameters that other variables have given.

    Example:
        >>> import torch
        >>> law = torch.distributions.Normal(torch.zeros(3, requires_grad=True), 1.0)
        >>> is_reparameterized(law.log_prob(law.rsample())), is_reparameterized(law.log_prob(law.sample()))
        (True, False)
    """
    waiting: list[Any] = [] if log_prob.grad_fn is None else [log_prob.grad_fn]
    for _ in range(NODES):
        if not waiting:
            return False
        node = waiting.pop()
        inputs = node.next_functions
        rule = RULES.get(type(node).__name__)
        if rule is not None and rule(inputs):
            return True
        waiting += [following for following, _ in inputs[::-1] if following is not None]
    return False


def is_shifted_noise(inputs: Any) -> bool:
    """Tell whether a difference is one of ``loc`` from ``loc`` and noise, or from an elementwise function of that."""
    (node, _), loc = inputs
    if loc[0] is None:
        return False
    for each in history(node):
        if type(each).__name__ in ("AddBackward0", "SubBackward0") and loc in each.next_functions:
            other = next((following for following, _ in each.next_functions if following is not loc[0]), None)
            return other is None or has_constant_factor(other) or type(other).__name__.startswith("Squeeze")
    return False


def is_scaled_noise(inputs: Any) -> bool:
    """Tell whether a product is one of ``rate`` and of noise divided by it."""
    return is_noise_over(*inputs) or is_noise_over(*inputs[::-1])


def is_noise_over(rate: tuple[Any, int], value: tuple[Any, int]) -> bool:
    """Tell whether a node computes noise divided by ``rate``."""
    if rate[0] is None or type(value[0]).__name__ != "DivBackward0":
        return False
    numerator, denominator = value[0].next_functions
    return numerator[0] is None and denominator == rate


def is_gaussian_of_its_noise(inputs: Any) -> bool:
    """Tell whether a quotient is one of ``-(scale · ε - c)²`` and ``2 scale²``."""
    (numerator, _), (denominator, _) = inputs
    difference = first_input(first_input(numerator, "NegBackward0")[0], "PowBackward0")[0]
    if first_input(difference, "SubBackward0")[0] is None:  # the value is a constant
        return False
    scale = first_input(first_input(denominator, "MulBackward0")[0], "PowBackward0")
    return is_noise_times(scale, difference)


def is_cauchy_of_its_noise(inputs: Any) -> bool:
    """Tell whether a logarithm is that of 1 and of ``((scale · ε - c) / scale)²``."""
    quotient = first_input(inputs[0][0], "PowBackward0")[0]
    difference = first_input(quotient, "DivBackward0")[0]
    if first_input(difference, "SubBackward0")[0] is None:  # the value is a constant
        return False
    return is_noise_times(quotient.next_functions[1], difference)


def first_input(node: Any, kind: str) -> tuple[Any, int]:
    """First of what a node of a kind was computed from; None for other nodes."""
    return node.next_functions[0] if type(node).__name__ == kind else (None, 0)


def is_noise_times(scale: tuple[Any, int], difference: Any) -> bool:
    """Tell whether a constant is subtracted from a product of ``scale`` and noise, or from its absolute value."""
    if scale[0] is None:
        return False
    for node in history(difference)[1:]:
        if type(node).__name__ == "MulBackward0":
            return has_constant_factor(node, 1) and scale in node.next_functions
        if type(node).__name__ not in ("AbsBackward0", "AddBackward0"):
            return False
    return False


def is_sampled(inputs: Any) -> bool:
    """Tell whether a product is one of a concentration and the logarithm of a value that was sampled with it."""
    (concentration, _), (value, _) = inputs
    samplers = [node for node in history(value) if type(node).__name__ in SAMPLERS]
    return bool(samplers) and not set(history(concentration)).isdisjoint(history(samplers[0]))


def has_constant_factor(node: Any, depth: int = 3) -> bool:
    """Tell whether a node computes a product one factor of which has no gradient, as noise has none."""
    if depth == 0 or type(node).__name__ != "MulBackward0":
        return False
    return any(factor is None or has_constant_factor(factor, depth - 1) for factor, _ in node.next_functions)


def history(node: Any) -> list[Any]:
    """Nodes from one back to the first that joins two paths."""
    found: list[Any] = []
    while node is not None and len(found) < STEPS:
        found.append(node)
        inputs = [following for following, _ in node.next_functions if following is not None]
        if type(node).__name__ in ("DivBackward0", "StackBackward0"):  # gamma noise over its rate; x beside 1 - x
            inputs = inputs[:1]
        node = inputs[0] if len(inputs) == 1 else None
    return found


RULES = {
    "SubBackward0": is_shifted_noise,
    "MulBackward0": is_scaled_noise,
    "XlogyBackward0": is_sampled,
    "DivBackward0": is_gaussian_of_its_noise,
    "Log1PBackward0": is_cauchy_of_its_noise,
}
"""By which a path is known, for each kind of node that may tell of one."""
