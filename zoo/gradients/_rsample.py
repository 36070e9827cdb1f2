"""Detection of values from ``rsample`` in the graph of their log-probability."""

from typing import Any

from torch import Tensor

# Nodes of the autograd graph that are searched: the density is near its root, the networks behind it are further away.
_MAX_NODES = 48
_MAX_HISTORY = 6  # nodes between a value and its noise, such as the exponential of a log-normal distribution
_SAMPLERS = ("StandardGammaBackward0", "_DirichletBackward")


def is_reparameterized(log_prob: Tensor) -> bool:
    """Return whether ``log_prob`` is that of a value from ``rsample``, as far as its graph shows.

    Such a log-probability is no score function, since the gradients through the value and through the parameters
    cancel: the derivative of ``log p(loc + scale · ε; loc, scale)`` by ``loc`` is 0.

    The graph is searched for ``value - loc`` with a value computed from the same ``loc`` and noise;
    ``rate · (ε / rate)``; ``(scale · ε - c)² / (2 scale²)`` and ``log(1 + ((scale · ε - c) / scale)²)`` if only the
    scale is learned; and ``(α - 1) log value`` with a value of a gamma or Dirichlet sampler.

    Some distributions are not detected, since their graphs do not differ from those of parameters that depend on other
    variables: uniform, Laplace and Student distributions of which only the scale is learned; Gumbel, Weibull, Pareto,
    Kumaraswamy, Fisher-Snedecor, continuous Bernoulli, relaxed, logistic-normal and Wishart distributions; and flows.
    """
    stack: list[Any] = [] if log_prob.grad_fn is None else [log_prob.grad_fn]
    for _ in range(_MAX_NODES):
        if not stack:
            return False
        node = stack.pop()
        inputs = node.next_functions
        rule = _RULES.get(type(node).__name__)
        if rule is not None and rule(inputs):
            return True
        stack += [parent for parent, _ in inputs[::-1] if parent is not None]
    return False


def _is_shifted_noise(inputs: Any) -> bool:
    """Whether a difference is ``f(loc + noise) - loc`` with an elementwise ``f``."""
    (node, _), loc = inputs
    if loc[0] is None:
        return False
    for each in _history(node):
        if type(each).__name__ in ("AddBackward0", "SubBackward0") and loc in each.next_functions:
            noise = next((parent for parent, _ in each.next_functions if parent is not loc[0]), None)
            return noise is None or _has_constant_factor(noise) or type(noise).__name__.startswith("Squeeze")
    return False


def _is_scaled_noise(inputs: Any) -> bool:
    """Whether a product is ``rate · (noise / rate)``."""
    return _is_noise_over(*inputs) or _is_noise_over(*inputs[::-1])


def _is_noise_over(rate: tuple[Any, int], value: tuple[Any, int]) -> bool:
    """Whether a node computes ``noise / rate``."""
    if rate[0] is None or type(value[0]).__name__ != "DivBackward0":
        return False
    numerator, denominator = value[0].next_functions
    return numerator[0] is None and denominator == rate


def _is_gaussian_of_its_noise(inputs: Any) -> bool:
    """Whether a quotient is ``-(scale · ε - c)² / (2 scale²)``."""
    (numerator, _), (denominator, _) = inputs
    difference = _first_input(_first_input(numerator, "NegBackward0")[0], "PowBackward0")[0]
    if _first_input(difference, "SubBackward0")[0] is None:  # the value is a constant
        return False
    scale = _first_input(_first_input(denominator, "MulBackward0")[0], "PowBackward0")
    return _is_noise_times(scale, difference)


def _is_cauchy_of_its_noise(inputs: Any) -> bool:
    """Whether a logarithm is ``log(1 + ((scale · ε - c) / scale)²)``."""
    quotient = _first_input(inputs[0][0], "PowBackward0")[0]
    difference = _first_input(quotient, "DivBackward0")[0]
    if _first_input(difference, "SubBackward0")[0] is None:  # the value is a constant
        return False
    return _is_noise_times(quotient.next_functions[1], difference)


def _first_input(node: Any, kind: str) -> tuple[Any, int]:
    """Return the first input of a node of this kind; no input for other nodes."""
    return node.next_functions[0] if type(node).__name__ == kind else (None, 0)


def _is_noise_times(scale: tuple[Any, int], difference: Any) -> bool:
    """Whether a difference is ``scale · noise - c`` or ``|scale · noise| - c``."""
    if scale[0] is None:
        return False
    for node in _history(difference)[1:]:
        if type(node).__name__ == "MulBackward0":
            return _has_constant_factor(node, 1) and scale in node.next_functions
        if type(node).__name__ not in ("AbsBackward0", "AddBackward0"):
            return False
    return False


def _is_sampled(inputs: Any) -> bool:
    """Whether a product is a concentration times the logarithm of a value sampled with it."""
    (concentration, _), (value, _) = inputs
    samplers = [node for node in _history(value) if type(node).__name__ in _SAMPLERS]
    return bool(samplers) and not set(_history(concentration)).isdisjoint(_history(samplers[0]))


def _has_constant_factor(node: Any, depth: int = 3) -> bool:
    """Whether a node computes a product of which a factor has no gradient, as is the case for noise."""
    if depth == 0 or type(node).__name__ != "MulBackward0":
        return False
    return any(factor is None or _has_constant_factor(factor, depth - 1) for factor, _ in node.next_functions)


def _history(node: Any) -> list[Any]:
    """Return a node, its only input, the only input of that, and so on, up to a node with several inputs."""
    found: list[Any] = []
    while node is not None and len(found) < _MAX_HISTORY:
        found.append(node)
        inputs = [parent for parent, _ in node.next_functions if parent is not None]
        # Gamma noise is divided by the rate; a beta sample x is stacked on 1 - x. Only the first input is followed.
        if type(node).__name__ in ("DivBackward0", "StackBackward0"):
            inputs = inputs[:1]
        node = inputs[0] if len(inputs) == 1 else None
    return found


# By type of the autograd node.
_RULES = {
    "SubBackward0": _is_shifted_noise,
    "MulBackward0": _is_scaled_noise,
    "XlogyBackward0": _is_sampled,
    "DivBackward0": _is_gaussian_of_its_noise,
    "Log1PBackward0": _is_cauchy_of_its_noise,
}
