import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import IterableDataset

from zoo.control._seeding import TRAINING, derive_seed
from zoo.control.envs.vector_env import VectorEnvAdapter
from zoo.control.policy import Policy
from zoo.control.rollout import Rollout, collect_rollout

STATS_WINDOW = 100  # episodes in the running mean of returns


class RolloutBatch(NamedTuple):
    """A rollout and the progress of training.

    Example:
        >>> RolloutBatch._fields
        ('rollout', 'env_steps', 'episode_return')
    """

    rollout: Rollout
    env_steps: int
    """Number of environment steps so far, without those that only reset."""
    episode_return: float | None
    """Mean return of the last 100 training episodes; None before there are as many."""


class _ReturnTracker:
    """Tracks the mean return of the last 100 training episodes.

    Early in training it is biased towards short episodes, which are the first to end.
    """

    def __init__(self, num_envs: int):
        self.partial_returns = np.zeros(num_envs)
        self.recent_returns: list[float] = []

    def update(self, rollout: Rollout) -> None:
        """Add a rollout that continues the previous one."""
        mask, done = rollout.mask.numpy(), (rollout.done & rollout.mask).numpy()
        sums = self.partial_returns + np.where(mask, rollout.reward.numpy(), 0).cumsum(0, dtype=np.float64)
        counted = np.zeros_like(self.partial_returns)
        for time, env in zip(*done.nonzero(), strict=True):
            self.recent_returns.append(float(sums[time, env] - counted[env]))
            counted[env] = sums[time, env]
        self.recent_returns = self.recent_returns[-STATS_WINDOW:]
        self.partial_returns = sums[-1] - counted

    @property
    def mean(self) -> float | None:
        """Mean return of the last 100 episodes; None before there are as many."""
        full = len(self.recent_returns) == STATS_WINDOW
        return sum(self.recent_returns) / STATS_WINDOW if full else None


class RolloutDataset(IterableDataset[RolloutBatch]):
    """Dataset of rollouts of a policy while it learns; each is collected on demand and yielded once.

    An epoch has ``num_rollouts`` rollouts, those between two evaluations. Each rollout has ``n_steps`` steps of each
    environment, or with ``complete_episodes`` one episode of each, of at most ``n_steps`` steps. Worker processes would
    prefetch rollouts of an older policy: use ``DataLoader(..., batch_size=None, num_workers=0)``.

    ``state_dict`` contains the state of the environments if they can save it. Otherwise they are reset before each
    epoch, with a seed derived from (seed, environment steps), so that an interrupted run equals an uninterrupted one.
    Episodes are then cut at the end of an epoch; a warning is raised if they last longer.

    Example:
        >>> from zoo.control import make_policy, make_vector_env
        >>> envs = VectorEnvAdapter(make_vector_env("CartPole-v1", num_envs=2))
        >>> dataset = RolloutDataset(envs, make_policy((4,), 2, hidden=(8,)), n_steps=4, num_rollouts=3, seed=0)
        >>> len(list(dataset))
        3
    """

    def __init__(
        self,
        envs: VectorEnvAdapter,
        policy: Policy,
        n_steps: int,
        num_rollouts: int,
        seed: int,
        rank: int = 0,
        complete_episodes: bool = False,
    ):
        self.envs, self.policy = envs, policy
        self.n_steps, self.num_rollouts, self.complete_episodes = n_steps, num_rollouts, complete_episodes
        self.seed, self.rank = seed, rank
        self.num_yielded = self.env_steps = 0
        self.step_count = np.zeros(len(envs), np.int64)
        self.returns = _ReturnTracker(len(envs))
        self._start = 0

    def __len__(self) -> int:
        """Return the number of rollouts in a complete epoch."""
        return self.num_rollouts

    def __iter__(self) -> Iterator[RolloutBatch]:
        start, self._start = self._start, 0
        for index in range(start, self.num_rollouts):
            if self.envs.observation is None or (index == 0 and not self.envs.can_save_state):
                self._reset(derive_seed(self.seed, TRAINING, self.rank, self.env_steps))
            elif self.complete_episodes:
                self._reset(seed=None)
            rollout = self._collect()
            self.env_steps += int(rollout.mask.sum())
            self.returns.update(rollout)
            self.num_yielded = index + 1
            yield RolloutBatch(rollout, self.env_steps, self.returns.mean)

    def _collect(self) -> Rollout:
        while True:  # all steps of a short rollout may be resets
            rollout = collect_rollout(
                self.envs, self.policy, self.n_steps, self.step_count, self.complete_episodes, self.env_steps
            )
            if rollout.mask.any():
                return rollout

    def _reset(self, seed: int | None) -> None:
        if not self.complete_episodes and self.step_count.max() >= (length := self.num_rollouts * self.n_steps):
            warnings.warn(
                f"an episode of {self.envs.name} lasted longer than the {length} steps of each environment between "
                "two evaluations, after which all environments are reset: later steps of an episode are never learned "
                "from; increase model.eval_freq",
                stacklevel=2,
            )
        self.envs.reset(seed)
        self.step_count[:] = 0
        self.returns.partial_returns[:] = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the complete state as plain data."""
        return {
            "num_yielded": self.num_yielded,
            "env_steps": self.env_steps,
            "envs": self.envs.state_dict(),
            "step_count": self.step_count.tolist(),
            "partial_returns": self.returns.partial_returns.tolist(),
            "recent_returns": list(self.returns.recent_returns),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state returned by ``state_dict``."""
        self.num_yielded, self.env_steps = state["num_yielded"], state["env_steps"]
        self._start = self.num_yielded % self.num_rollouts
        if state["envs"] is not None:
            self.envs.load_state_dict(state["envs"])
        self.step_count = np.array(state["step_count"])
        self.returns.partial_returns = np.array(state["partial_returns"])
        self.returns.recent_returns = list(state["recent_returns"])
