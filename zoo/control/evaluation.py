import itertools
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from scipy import stats

from zoo.control.acting import NOISE_AT_ONCE, actor
from zoo.control.environments import EnvironmentFailure, Environments
from zoo.control.policies import Policy


class ReturnEstimate(NamedTuple):
    """Undiscounted returns of whole episodes."""

    mean: float
    low: float
    """Lower end of the 95 % interval of the mean for fresh episodes (Student's t)."""
    high: float


class Evaluation(NamedTuple):
    """How a frozen policy does, in as many episodes each."""

    stochastic: ReturnEstimate
    """Actions are sampled, as while learning."""
    greedy: ReturnEstimate
    """The likeliest action is taken."""


class Evaluator:
    """Measures policies in environments of its own: the first episode of each.

    The first episode of each, not the first to end: those would be the short ones.

    Args:
        environments: an even number of them: one half for the stochastic policy, the other for the greedy one.

    Raises:
        ValueError: there are no two environments for each.

    Example:
        >>> from zoo.control.environments import make_environments
        >>> from zoo.control.policies import make_policy
        >>> evaluator = Evaluator(Environments(make_environments("CartPole-v1", count=20)))
        >>> evaluator.measure(make_policy((4,), 2, hidden=(8,)), seed=0).stochastic.mean < 100
        True
    """

    def __init__(self, environments: Environments):
        if len(environments) < 4 or len(environments) % 2:
            raise ValueError(f"an interval needs at least 2 episodes of each kind, got {len(environments) / 2:g}")
        self.environments = environments

    def measure(self, policy: Policy, seed: int) -> Evaluation:
        """Let the policy play.

        Args:
            policy: in any mode and on any device; it is left as it was.
            seed: of the environments and of the policy's noise; the global random state is left alone.

        Raises:
            EnvironmentFailure: an environment raised an error, or gave an observation or reward that is not finite.
        """
        returns = first_returns(self.environments, policy, seed)
        stochastic, greedy = np.split(returns, 2)
        return Evaluation(estimate(stochastic), estimate(greedy))


@torch.inference_mode()
def first_returns(environments: Environments, policy: Policy, seed: int) -> Float[np.ndarray, " envs"]:
    """Return of one episode in each environment; in the second half with noise 0.

    Raises:
        EnvironmentFailure: an environment raised an error, or gave an observation or reward that is not finite.
    """
    generator = torch.Generator(next(policy.parameters()).device).manual_seed(seed)
    environments.reset(seed)
    act, sampled = actor(policy), len(environments) // 2
    returns, running = np.zeros(len(environments)), np.ones(len(environments), dtype=bool)
    check_finite(environments.observation, running, f"{environments.name} gave an observation", "at the beginning")
    for t in itertools.count():
        if t % NOISE_AT_ONCE == 0:
            noise = policy.noise(NOISE_AT_ONCE, len(environments), generator=generator)
            noise[:, sampled:] = 0
        step = environments.step(act(environments.observation, noise[t % NOISE_AT_ONCE]))
        check_finite(step.following, running, f"{environments.name} gave an observation", f"after step {t}")
        check_finite(step.reward, running, f"{environments.name} gave a reward", f"in step {t}")
        returns += np.where(running, step.reward, 0)
        running &= ~step.ended
        if not running.any():
            break
    return returns


def check_finite(
    values: Shaped[np.ndarray, " envs ..."], running: Bool[np.ndarray, " envs"], what: str, when: str
) -> None:
    """Refuse what is not finite in an environment whose episode still counts.

    Raises:
        EnvironmentFailure: something is not.
    """
    if values.dtype.kind != "f":
        return
    broken = running & ~np.isfinite(values).reshape(len(values), -1).all(-1)
    if broken.any():
        raise EnvironmentFailure(
            f"{what} that is not finite {when} of an episode, in environment {broken.argmax()} of an evaluation"
        )


def estimate(returns: Float[np.ndarray, " episodes"]) -> ReturnEstimate:
    """Mean of returns with its 95 % interval.

    Example:
        >>> estimate(np.array([1.0, 3.0])).mean
        2.0
    """
    mean = float(returns.mean())
    half = float(stats.t.ppf(0.975, len(returns) - 1) * returns.std(ddof=1) / len(returns) ** 0.5)
    return ReturnEstimate(mean, mean - half, mean + half)
