import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.utils.data import IterableDataset

from zoo.control.acting import NOISE_AT_ONCE, actor
from zoo.control.envs.vector_env import EnvironmentFailure, Environments
from zoo.control.policy_gradient.policies import Policy
from zoo.control.seeding import TRAINING, seed_of

RECENT = 100  # episodes in the running mean of returns


class Rollout(NamedTuple):
    """What a policy did in several environments at once."""

    observation: Shaped[Tensor, "time envs ..."]
    """``s_t``."""
    action: Shaped[Tensor, "time envs ..."]
    """``a_t``, as the policy drew it."""
    reward: Float[Tensor, "time envs"]
    """``r_t``."""
    following: Shaped[Tensor, "time envs ..."]
    """``s_{t+1}``, before any reset."""
    terminated: Bool[Tensor, "time envs"]
    """Nothing follows."""
    ended: Bool[Tensor, "time envs"]
    """Terminated, or cut by a time limit."""
    valid: Bool[Tensor, "time envs"]
    """False where the environment ignored the action, or its episode was over before."""
    elapsed: Int[Tensor, "time envs"]
    """``t`` counted from the episode's first step."""


def collect(
    environments: Environments,
    policy: Policy,
    steps: int,
    elapsed: Int[np.ndarray, " envs"],
    whole: bool = False,
    env_steps: int = 0,
) -> Rollout:
    """Let a policy act for a number of steps.

    Args:
        environments: in the state to go on from.
        policy: gives the actions; draws from the global random state.
        steps: how many.
        elapsed: steps of the present episodes so far; brought up to date.
        whole: ignore in each environment what comes after the end of its episode, and stop when all have ended.
        env_steps: environment steps that were taken before; for messages.

    Raises:
        EnvironmentFailure: an environment raised an error, or gave numbers that are not finite.
    """
    shape = steps, len(environments)
    observation = np.empty((*shape, *environments.observation.shape[1:]), environments.observation.dtype)
    following, reward = np.empty_like(observation), np.empty(shape, np.float32)
    terminated, ended, valid = (np.empty(shape, bool) for _ in range(3))
    elapsed_t, over, actions = np.empty(shape, np.int64), np.zeros(shape[1], bool), []
    with torch.inference_mode():
        act = actor(policy)
        for t in range(steps):
            if t % NOISE_AT_ONCE == 0:
                noise = policy.noise(min(NOISE_AT_ONCE, steps - t), shape[1])
            observation[t], elapsed_t[t] = environments.observation, elapsed
            action = act(observation[t], noise[t % NOISE_AT_ONCE])
            following[t], reward[t], terminated[t], ended[t], valid[t] = environments.step(action)
            actions.append(action)
            elapsed += valid[t]
            elapsed[ended[t]] = 0
            if whole:
                valid[t] &= ~over
                over |= ended[t]
                if over.all():
                    break
    parts = (reward, following, terminated, ended, valid, elapsed_t)
    rollout = Rollout(
        torch.from_numpy(observation[: t + 1]),
        torch.stack(actions),
        *(torch.from_numpy(part[: t + 1]) for part in parts),
    )
    check_finite(rollout, environments.name, env_steps)
    return rollout


def check_finite(rollout: Rollout, name: str, env_steps: int = 0) -> None:
    """Refuse observations and rewards that are not finite, and name the first place.

    Args:
        rollout: to look at.
        name: of the environment.
        env_steps: environment steps that were taken before.

    Raises:
        EnvironmentFailure: there are such.
    """
    given = ("observation", rollout.observation), ("reward", rollout.reward), ("observation", rollout.following)
    found = [
        ((~torch.isfinite(values)).nonzero()[0, :2].tolist(), what)
        for what, values in given
        if values.is_floating_point() and not torch.isfinite(values).all()
    ]
    if found:
        (time, env), what = min(found, key=lambda place: place[0][0])  # of the same step, in the order they were given
        raise EnvironmentFailure(
            f"{name} gave {what}s that are not finite, first in environment {env} at step {time} of the rollout that "
            f"began after {env_steps} environment steps"
        )


class ReturnTracker:
    """Mean return of the last hundred episodes that ended while learning.

    Of episodes begun at the same time the short ones end first, so early on this mean lies too low where long is good.

    Args:
        environments: how many act at once.
    """

    def __init__(self, environments: int):
        self.running = np.zeros(environments)
        self.recent: list[float] = []

    def update(self, rollout: Rollout) -> None:
        """Go on with a rollout that followed the ones before."""
        valid, ended = rollout.valid.numpy(), (rollout.ended & rollout.valid).numpy()
        sums = self.running + np.where(valid, rollout.reward.numpy(), 0).cumsum(0, dtype=np.float64)
        before = np.zeros_like(self.running)
        for time, env in zip(*ended.nonzero(), strict=True):
            self.recent.append(float(sums[time, env] - before[env]))
            before[env] = sums[time, env]
        self.recent = self.recent[-RECENT:]
        self.running = sums[-1] - before

    @property
    def mean(self) -> float | None:
        """Mean return of the last hundred; None before there are as many."""
        return sum(self.recent) / RECENT if len(self.recent) == RECENT else None


class Batch(NamedTuple):
    """A rollout, and how far the training has come with it."""

    rollout: Rollout
    env_steps: int
    """Environment steps so far, without those that only reset."""
    episode_return: float | None
    """Mean return of the last hundred episodes; None before there are as many."""


class Rollouts(IterableDataset[Batch]):
    """Rollouts of a policy while it learns; each is taken when it is asked for, and given once.

    One pass gives those between two evaluations. What is asked for ahead of time comes from an older policy: no worker
    processes, and no prefetching (in a ``DataLoader``: ``batch_size=None, num_workers=0``).

    The state holds that of a native vector environment. Others cannot tell theirs: they are seeded and reset from
    (seed, environment steps) before each pass, and so at each checkpoint, whether the run was interrupted or not. What
    comes later in an episode than a pass is long is then never learned from; the first time that happens, a warning
    says so.

    Args:
        environments: to act in.
        policy: the one that learns.
        steps: of a rollout, in each environment; at most as many with ``whole``.
        rollouts: of a pass.
        seed: of the environments.
        rank: which of several processes this one is.
        whole: each rollout is a whole episode of each environment.
    """

    def __init__(
        self,
        environments: Environments,
        policy: Policy,
        steps: int,
        rollouts: int,
        seed: int,
        rank: int = 0,
        whole: bool = False,
    ):
        self.environments = environments
        self.policy = policy
        self.steps = steps
        self.rollouts = rollouts
        self.seed = seed
        self.rank = rank
        self.whole = whole
        self.given = self.start = self.env_steps = 0
        self.elapsed = np.zeros(len(environments), np.int64)
        self.returns = ReturnTracker(len(environments))

    def __len__(self) -> int:
        """Rollouts in a whole pass, wherever the next one begins."""
        return self.rollouts

    def __iter__(self) -> Iterator[Batch]:
        start, self.start = self.start, 0
        for index in range(start, self.rollouts):
            if self.environments.observation is None or (index == 0 and not self.environments.remembers):
                self.restart()
            elif self.whole:
                self.environments.reset()
            if self.whole:
                self.elapsed[:] = 0
                self.returns.running[:] = 0
            rollout = self.take()
            self.env_steps += int(rollout.valid.sum())
            self.returns.update(rollout)
            self.given = index + 1
            yield Batch(rollout, self.env_steps, self.returns.mean)

    def take(self) -> Rollout:
        """Take the next rollout in which anything happens: in a short one all environments may do nothing but reset."""
        while True:
            rollout = collect(
                self.environments, self.policy, self.steps, self.elapsed, self.whole, env_steps=self.env_steps
            )
            if rollout.valid.any():
                return rollout

    def restart(self) -> None:
        """Begin new episodes, with random numbers that depend on the seed and the steps so far alone."""
        if not self.whole and self.elapsed.max() >= (length := self.rollouts * self.steps):
            warnings.warn(
                f"an episode of {self.environments.name} lasted longer than the {length} steps of each environment "
                "between two evaluations, where all are reset: what comes later in an episode is never learned from; "
                "make model.eval_freq larger",
                stacklevel=2,
            )
        self.environments.reset(seed_of(self.seed, TRAINING, self.rank, self.env_steps))
        self.elapsed[:] = 0
        self.returns.running[:] = 0

    def state_dict(self) -> dict[str, Any]:
        """Give all that decides what comes next, as plain data."""
        return {
            "given": self.given,
            "env_steps": self.env_steps,
            "environments": self.environments.state_dict(),
            "elapsed": self.elapsed.tolist(),
            "running": self.returns.running.tolist(),
            "recent": list(self.returns.recent),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the state was taken."""
        self.given, self.env_steps = state["given"], state["env_steps"]
        self.start = self.given % self.rollouts
        if state["environments"] is not None:
            self.environments.load_state_dict(state["environments"])
        self.elapsed = np.array(state["elapsed"])
        self.returns.running, self.returns.recent = np.array(state["running"]), list(state["recent"])
