from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.gradients.estimators.estimator import GradientEstimate, GradientEstimator, LatentModel, sum_terms

MAX_UNITS = 12
"""Maximum number of units whose states are enumerated."""


def enumerate_states(units: Sequence[int]) -> list[Float[Tensor, "states 1 _"]]:
    """Return all states of layers of binary units, for each layer, with the states in the particle dimension.

    Raises:
        ValueError: there are more than 12 units.

    Example:
        >>> [layer.squeeze(1).tolist() for layer in enumerate_states([1, 1])]
        [[[0.0], [0.0], [1.0], [1.0]], [[0.0], [1.0], [0.0], [1.0]]]
    """
    bits = sum(units)
    if bits > MAX_UNITS:
        raise ValueError(f"{bits} stochastic units have too many states to enumerate; the maximum is {MAX_UNITS} units")
    states = torch.arange(2**bits)[:, None] >> torch.arange(bits - 1, -1, -1)
    return list((states & 1).to(torch.get_default_dtype()).unsqueeze(1).split(list(units), dim=-1))


def enumerate_log_probs(
    model: LatentModel,
) -> tuple[Float[Tensor, "states batch"], Float[Tensor, "states batch"]]:
    """Return ``log p(x, h)`` and ``log q(h | x)`` of every state ``h``, in nats.

    Raises:
        ValueError: the model has more than 12 units.

    Example:
        >>> from zoo.inference.sbn import BeliefNetwork, ConditionedNetwork
        >>> log_p, log_q = enumerate_log_probs(ConditionedNetwork(BeliefNetwork(6, layers=[3]), torch.ones(5, 6)))
        >>> log_q.shape, torch.allclose(log_q.exp().sum(0), torch.ones(5))
        (torch.Size([8, 5]), True)
    """
    states = enumerate_states(model.units)
    sampled = model.evaluate(lambda layer, logits: states[layer].to(logits).expand(-1, logits.shape[-2], -1))
    return sum_terms(sampled.log_joint), sum_terms(sampled.log_q)


class Enumeration(GradientEstimator):
    """Exact gradient of the ELBO: every state of the units is evaluated.

    Raises:
        ValueError: there are more than 12 units, or ``baseline`` or ``scale`` is set; the other options have no effect.

    Example:
        >>> Enumeration([3, 2]).min_particles
        1
    """

    def __init__(
        self,
        units: Sequence[int],
        make_net: Callable[[int], nn.Module] | None = None,
        *,
        baseline: str | None = None,
        scale: bool = False,
        **options: object,
    ):
        super().__init__()
        if sum(units) > MAX_UNITS:
            raise ValueError(f"estimator=enumeration supports at most {MAX_UNITS} units in total, got {sum(units)}")
        if baseline is not None:
            raise ValueError("estimator=enumeration is exact and has no baseline; remove estimator.baseline")
        if scale:
            raise ValueError("estimator=enumeration is exact and has no signals to scale; remove estimator.scale")

    def forward(self, model: LatentModel, num_particles: int) -> GradientEstimate:
        """Return the negative ELBO, summed over all states."""
        log_p, log_q = enumerate_log_probs(model)
        bound = (log_q.exp() * (log_p - log_q)).sum(0)
        zero = bound.new_zeros(())
        return GradientEstimate(-bound.mean(), zero, zero, bound.detach(), [])
