from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from zoo.control.policy_gradient.policies import Policy
from zoo.control.returns import lambda_return
from zoo.control.rollout import Rollout
from zoo.gradients import Baseline, Constant, Learned, MovingAverage, Reinforce, ReinforceOutput, score_function_loss


class PolicyGradientObjective(NamedTuple):
    """The loss of one rollout, term by term, and what it was made of."""

    policy: Float[Tensor, ""]
    """Summed over time, mean over environments; its gradient is minus the policy gradient."""
    entropy: Float[Tensor, ""]
    """Of the policy, in nats; summed and averaged alike."""
    value: Float[Tensor, ""]
    """Mean squared error of the baseline; 0 where it does not learn."""
    returns: Float[Tensor, "time envs"]
    """What the baseline is fitted to, and the advantage measured from."""
    estimate: ReinforceOutput


def policy_gradient_objective(
    policy: Policy,
    rollout: Rollout,
    reinforce: Reinforce,
    gamma: float,
    gae_lambda: float = 1.0,
    normalize_advantage: bool = False,
    discount_weighting: bool = False,
) -> PolicyGradientObjective:
    """REINFORCE with the reward to go: ``∇J = E[Σ_t ∇ log π(a_t | s_t) (G_t - b(s_t))]``.

    Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement learning", 1992.

    Exact, for whole episodes with ``gae_lambda=1`` and no normalisation: with ``discount_weighting`` it is the
    gradient of ``E[Σ_t γᵗ r_t]``; without, each step counts as if the episode began there, as nearly everybody has
    it. Biased is whatever a learned value stands for: rewards after a cut, and with ``gae_lambda < 1`` all later ones.
    An episode that a time limit cuts goes on, as far as a learned value can tell; without one it ends there.

    Args:
        policy: the one that took the rollout, unchanged since: no other's samples are right.
        rollout: what it did.
        reinforce: with ``maximize=True``; its baseline's context is the observation.
        gamma: ``γ``.
        gae_lambda: ``λ``; see ``lambda_return``. 1 where no value is learned.
        normalize_advantage: divide the advantages of the rollout by their root mean square; where a value is learned,
            take their mean away before. That mean is a baseline too, and would stand in the place of any constant
            one. A bias, of the order of one over their number.
        discount_weighting: weigh step ``t`` of an episode by ``γᵗ``.
    """
    if learned_value(reinforce) is None:
        gae_lambda = 1.0  # there is nothing to bootstrap from: less would but discount more
    returns = lambda_return(rollout.reward, gamma, following_value(reinforce, rollout), rollout.ended, gae_lambda)
    log_prob, entropy = policy.log_prob_and_entropy(rollout.observation, rollout.action)
    out = reinforce(log_prob, returns, context=rollout.observation, mask=rollout.valid)
    loss = out.loss
    if normalize_advantage:
        advantage = normalized(out.advantage, rollout.valid, centre=learned_value(reinforce) is not None)
        loss = -score_function_loss(log_prob, advantage, mask=rollout.valid)
    if discount_weighting:
        loss = loss * loss.new_tensor(gamma) ** rollout.elapsed
    return PolicyGradientObjective(
        policy=loss.sum(0).mean(),
        entropy=torch.where(rollout.valid, entropy, 0).sum(0).mean(),
        value=out.baseline_loss,
        returns=returns,
        estimate=out,
    )


@torch.no_grad()
def following_value(reinforce: Reinforce, rollout: Rollout) -> Float[Tensor, "time envs"]:
    """``V(s_{t+1})``: 0 where nothing follows, and everywhere if no value is learned."""
    value = learned_value(reinforce)
    if value is None:
        return torch.zeros_like(rollout.reward)
    return torch.where(rollout.terminated, 0, value(rollout.following))


class StateValue(nn.Module):
    """``V(s)`` by a baseline: the guess of its network, on top of the constants or running means that it goes out from.

    Args:
        guess: the part that looks at the state.
        offsets: the parts that are the same for all states; what they leave over is what the network is fitted to.

    Example:
        >>> value = StateValue(Learned(nn.Linear(3, 1)), [Constant(2.0)])
        >>> value(torch.zeros(5, 3)).shape
        torch.Size([5])
    """

    def __init__(self, guess: Learned, offsets: Sequence[Baseline] = ()):
        super().__init__()
        self.net, self.offsets = guess.net, offsets

    def forward(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*batch"]:
        """Give the return that is expected from each state."""
        value: Tensor = self.net(observation).squeeze(-1)
        for offset in self.offsets:
            value = value + offset.predict(value, None, None)
        return value


def learned_value(reinforce: Reinforce) -> StateValue | None:
    """Give what the baseline knows of the return of a state, if any part of it learns that."""
    parts = list(reinforce.modules())
    guess = next((part for part in parts if isinstance(part, Learned)), None)
    if guess is None:
        return None
    return StateValue(guess, [part for part in parts if isinstance(part, Constant | MovingAverage)])


def normalized(
    advantage: Float[Tensor, "time envs"], valid: Bool[Tensor, "time envs"], centre: bool = True
) -> Float[Tensor, "time envs"]:
    """Divide the valid elements by their root mean square, which is their standard deviation once they are centred.

    Over the whole batch, never along one episode: its mean depends on the actions judged by it.

    Args:
        advantage: in units of reward.
        valid: where it counts; 0 is given elsewhere.
        centre: take their mean away before; if they are all alike, 0 is left.

    Example:
        >>> normalized(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[True, True, False]]))
        tensor([[-1.,  1.,  0.]])
    """
    count = valid.sum().clamp(min=1)
    advantage = torch.where(valid, advantage, 0)
    if centre:
        advantage = torch.where(valid, advantage - advantage.sum() / count, 0)
    return advantage / (advantage.square().sum() / count).sqrt().clamp(min=1e-3)
