"""Detection of values from ``rsample`` in the graph of their log-probability."""

from typing import Any

from torch import Tensor

_MAX_NODES = 48  # that are searched: a density is near the root of the graph, the networks behind it are not
_MAX_HISTORY = 6  # nodes between a value and its noise, such as the exponential of a log-normal distribution
_SAMPLERS = ("StandardGammaBackward0", "_DirichletBackward")


def is_reparameterized(log_prob: Tensor) -> bool:
    """Return whether ``log_prob`` is that of a value from ``rsample``, as far as its graph shows.

    The gradients through value and parameters cancel: the score of ``loc + scale · ε`` under the distribution with that
    ``loc`` is 0. Detected are ``value - loc`` with a value computed from the same ``loc`` and noise;
    ``rate · (ε / rate)``; ``(scale · ε - c)² / (2 scale²)`` and ``log(1 + ((scale · ε - c) / scale)²)`` if only the
    scale is learned; and ``(α - 1) log value`` with a value of a gamma or Dirichlet sampler.

    Not detected are uniform, Laplace and Student distributions of which only the scale is learned, and Gumbel, Weibull,
    Pareto, Kumaraswamy, Fisher-Snedecor, continuous Bernoulli, relaxed, logistic-normal and Wishart distributions and
    flows: their graphs do not differ from those of parameters that depend on other variables.
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
    """Return the first input of a node if the node is of a kind, else None."""
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
    """Whether a node computes a product with a factor without gradient, as noise has none."""
    if depth == 0 or type(node).__name__ != "MulBackward0":
        return False
    return any(factor is None or _has_constant_factor(factor, depth - 1) for factor, _ in node.next_functions)


def _history(node: Any) -> list[Any]:
    """Return a node and those it was computed from, one after the other, back to one with several inputs."""
    found: list[Any] = []
    while node is not None and len(found) < _MAX_HISTORY:
        found.append(node)
        inputs = [parent for parent, _ in node.next_functions if parent is not None]
        if type(node).__name__ in ("DivBackward0", "StackBackward0"):  # gamma noise over its rate; x stacked on 1 - x
            inputs = inputs[:1]
        node = inputs[0] if len(inputs) == 1 else None
    return found


_RULES = {
    "SubBackward0": _is_shifted_noise,
    "MulBackward0": _is_scaled_noise,
    "XlogyBackward0": _is_sampled,
    "DivBackward0": _is_gaussian_of_its_noise,
    "Log1PBackward0": _is_cauchy_of_its_noise,
}  # by type of node
