import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from zoo.gradients._tensors import at_least_float32

Observations = Shaped[Tensor, "..."]
"""``(*batch, *observation)``."""
Actions = Shaped[Tensor, "..."]
"""``(*batch)``, or ``(*batch, factors)`` if an action has several."""
Outputs = Float[Tensor, "*batch out"]
Noise = Float[Tensor, "*batch action"]
PerStep = Float[Tensor, "*batch"]


class Policy(nn.Module):
    """Base class for policies: a distribution over actions given an observation.

    An action is a function of the observation and of noise. Noise can therefore be sampled for many steps at once, and
    with zero noise every policy is greedy: it returns the most likely action.

    Example:
        >>> from zoo.control.policy_gradient import CategoricalPolicy
        >>> policy: Policy = CategoricalPolicy(nn.Linear(4, 2), num_actions=2)
        >>> policy.act(torch.zeros(3, 4), noise=torch.zeros(3, 2)).shape
        torch.Size([3])
    """

    net: nn.Module
    """Maps observations to the parameters of the distribution."""
    tabular: bool = False
    """Whether observations are indices of a table's rows."""
    noise_size: int
    """Number of elements of the noise of one action."""

    def noise(self, *shape: int, generator: torch.Generator | None = None) -> Float[Tensor, "*shape action"]:
        """Sample noise for actions: Gumbel, by which the argmax of ``logits + noise`` is a sample of their softmax."""
        like = next(self.parameters())
        dtype = at_least_float32(like.dtype, like.device)  # half precision has ties
        noise = like.new_empty(*shape, self.noise_size, dtype=dtype)
        return noise.exponential_(generator=generator).log_().neg_()

    def sample_from_noise(self, output: Outputs, noise: Noise) -> Actions:
        """Return actions, given the network's output."""
        raise NotImplementedError

    def act(self, observation: Observations, noise: Noise) -> Actions:
        """Return sampled actions, or the most likely ones if the noise is 0."""
        return self.sample_from_noise(self.net(observation), noise)

    def log_prob_and_entropy(self, observation: Observations, action: Actions) -> tuple[PerStep, PerStep]:
        """Return ``log π(a | s)`` of the given actions, and the entropy of ``π(· | s)`` in nats."""
        raise NotImplementedError
