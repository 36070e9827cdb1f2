import itertools
import time
import warnings
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped

from zoo.control.acting import NOISE_AT_ONCE, actor
from zoo.control.envs.vector_env import EnvironmentFailure, Environments
from zoo.control.policy_gradient.policies import Policy
from zoo.stats import student_t_half_width

BUDGET = 3600.0  # seconds of an evaluation, after which it is given up
PATIENCE = 60.0  # seconds after which it is said that an evaluation takes long


class ReturnEstimate(NamedTuple):
    """Undiscounted returns of whole episodes."""

    mean: float
    low: float
    """Lower end of the 95 % interval of the mean for fresh episodes (Student's t, within the bounds of a return)."""
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
        budget: seconds of an evaluation, after which it is given up.

    Raises:
        ValueError: there are no two environments for each.

    Example:
        >>> from zoo.control.envs.vector_env import make_environments
        >>> from zoo.control.policy_gradient.policies import make_policy
        >>> evaluator = Evaluator(Environments(make_environments("CartPole-v1", count=20)))
        >>> evaluator.measure(make_policy((4,), 2, hidden=(8,)), seed=0).stochastic.mean < 100
        True
    """

    def __init__(self, environments: Environments, budget: float = BUDGET):
        if len(environments) < 4 or len(environments) % 2:
            raise ValueError(f"an interval needs at least 2 episodes of each kind, got {len(environments) / 2:g}")
        self.environments, self.budget = environments, budget

    def measure(self, policy: Policy, seed: int) -> Evaluation:
        """Let the policy play.

        Args:
            policy: in any mode and on any device; it is left as it was.
            seed: of the environments and of the policy's noise; the global random state is left alone.

        Raises:
            EnvironmentFailure: an environment raised an error, gave an observation or reward that is not finite, or did
                not end its episode in the time there is.
        """
        returns = first_returns(self.environments, policy, seed, self.budget)
        stochastic, greedy = np.split(returns, 2)
        return Evaluation(estimate(stochastic), estimate(greedy))


@torch.inference_mode()
def first_returns(
    environments: Environments, policy: Policy, seed: int, budget: float = BUDGET
) -> Float[np.ndarray, " envs"]:
    """Return of one episode in each environment; in the second half with noise 0.

    Raises:
        EnvironmentFailure: an environment raised an error, gave an observation or reward that is not finite, or did not
            end its episode within ``budget`` seconds.
    """
    began, said = time.monotonic(), False
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
        if (seconds := time.monotonic() - began) > (budget if said else min(PATIENCE, budget)):
            still = f"{running.sum()} of {len(running)} episodes of an evaluation in {environments.name} had not ended"
            after = f"after {t + 1:,} steps each and {seconds:,.0f} seconds"
            if seconds > budget:
                raise EnvironmentFailure(
                    f"{still} {after}, and it is given up: cut episodes by env_kwargs.max_episode_steps=..., or set "
                    "model.n_eval_episodes to fewer"
                )
            warnings.warn(f"{still} {after}; it is given up after {budget:,.0f} seconds", stacklevel=2)
            said = True
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

    An extreme that several episodes share is taken for a bound of the returns, as that of a time limit is, and the
    interval ends there: no mean lies beyond.

    Example:
        >>> estimate(np.array([1.0, 3.0])).mean
        2.0
        >>> estimate(np.array([500.0, 500.0, 500.0, 480.0])).high
        500.0
    """
    mean = float(returns.mean())
    half = student_t_half_width(returns.std(ddof=1), len(returns))
    low, high = mean - half, mean + half
    least, most = float(returns.min()), float(returns.max())
    if (returns == least).sum() > 1:
        low = max(low, least)
    if (returns == most).sum() > 1:
        high = min(high, most)
    return ReturnEstimate(mean, low, high)
