from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from zoo.control.rollout import Rollout


class Transitions(NamedTuple):
    """Batch of transitions of one or several steps, in no particular order.

    Example:
        >>> Transitions._fields
        ('observation', 'action', 'reward', 'terminated', 'next_observation', 'discount')
    """

    observation: Shaped[Tensor, "batch ..."]
    action: Int[Tensor, " batch"]
    """The action taken at ``observation``."""
    reward: Float[Tensor, " batch"]
    """Discounted sum over the steps."""
    terminated: Bool[Tensor, " batch"]
    """Whether the last step terminated."""
    next_observation: Shaped[Tensor, "batch ..."]
    """Observation after the last step."""
    discount: Float[Tensor, " batch"]
    """``γ`` to the power of the number of steps: the weight of the bootstrapped value."""

    @classmethod
    def from_rollout(cls, rollout: Rollout, gamma: float) -> "Transitions":
        """Return the valid steps of a rollout as one-step transitions."""
        names = ("observation", "action", "reward", "terminated", "next_observation")
        valid = {name: getattr(rollout, name)[rollout.mask] for name in names}
        return cls(**valid, discount=torch.full_like(valid["reward"], gamma))


_MAX_ATTEMPTS = 1000  # to fill a batch
_STORED_FIELDS = ("observation", "action", "reward", "terminated", "done", "mask")


class ReplayBuffer:
    """Ring buffer of the latest steps, from which n-step transitions are sampled uniformly.

    Lin, "Self-improving reactive agents based on reinforcement learning, planning and teaching", 1992.

    A row holds one step of all environments. The observation after a step is stored only as that of the next row.
    Therefore the newest rows cannot be sampled yet, and a step after which the environment was reset is never sampled,
    unless it terminated.

    ``buffer_size`` is the capacity in steps of all environments together. Transitions have ``n_steps`` steps, fewer
    where the episode ends before.

    Example:
        >>> ReplayBuffer(buffer_size=100, n_steps=1, gamma=0.99).size
        0
    """

    def __init__(self, buffer_size: int, n_steps: int, gamma: float):
        if n_steps < 1:
            raise ValueError(f"n_steps must be at least 1, got {n_steps}")
        self.buffer_size, self.n_steps, self.gamma = buffer_size, n_steps, gamma
        self.num_added = 0
        self.columns: dict[str, Tensor] = {}
        self._last_observation = torch.empty(0)

    def add(self, rollout: Rollout) -> None:
        """Add the steps of a rollout in place of the oldest ones.

        Raises:
            ValueError: the buffer is too small for the rollout.
        """
        steps, envs = rollout.action.shape
        num_rows = self.buffer_size // envs
        if num_rows < steps + self.n_steps:
            raise ValueError(
                f"a replay buffer of {self.buffer_size} steps is too small for rollouts of {steps} steps of {envs} "
                f"environments; it must hold at least {envs * (steps + self.n_steps)}"
            )
        columns = {name: getattr(rollout, name) for name in _STORED_FIELDS}
        columns["continues"] = torch.zeros_like(rollout.mask)
        columns["continues"][:-1] = _equal(rollout.next_observation[:-1], rollout.observation[1:], dims=2)
        if not self.columns:
            self.columns = {name: column.new_zeros(num_rows, *column.shape[1:]) for name, column in columns.items()}
        if self.num_added:
            last_row = (self.num_added - 1) % num_rows
            self.columns["continues"][last_row] = _equal(self._last_observation, rollout.observation[0], dims=1)
        rows = torch.arange(self.num_added, self.num_added + steps) % num_rows
        for name, column in columns.items():
            self.columns[name][rows] = column
        self.num_added += steps
        self._last_observation = rollout.next_observation[-1].clone()

    @property
    def size(self) -> int:
        """Number of stored steps of each environment; sampling needs more than ``n_steps`` of them."""
        return min(self.num_added, len(self.columns["mask"])) if self.columns else 0

    def sample(self, batch_size: int) -> Transitions:
        """Sample transitions uniformly with replacement.

        Raises:
            ValueError: nothing can be sampled yet, or hardly any step can be used.
        """
        if self.size <= self.n_steps:
            raise ValueError(
                f"the replay buffer holds {self.size} steps of each environment, and no step is followed by "
                f"{self.n_steps} more"
            )
        batch = self._sample_usable(batch_size)
        for _ in range(_MAX_ATTEMPTS):
            if (missing := batch_size - len(batch.action)) == 0:
                return batch
            batch = Transitions(*map(torch.cat, zip(batch, self._sample_usable(missing), strict=True)))
        raise ValueError(
            f"hardly any of the {self.size} steps of each environment in the replay buffer is followed by "
            f"{self.n_steps} steps of its episode or by its end, and the others cannot be used: reduce n_steps, or "
            "increase learning_starts"
        )

    def _sample_usable(self, num_candidates: int) -> Transitions:
        device, envs = self.columns["mask"].device, self.columns["mask"].shape[1]
        row = self.num_added - self.size + torch.randint(self.size - self.n_steps, (num_candidates,), device=device)
        env = torch.randint(envs, (num_candidates,), device=device)
        return self.transitions(row, env)

    def transitions(self, row: Int[Tensor, " samples"], env: Int[Tensor, " samples"]) -> Transitions:
        """Return the transitions that start at the given rows and environments, without those not stored completely."""
        num_rows, offset = len(self.columns["mask"]), torch.arange(self.n_steps, device=row.device)
        rows, envs = (row[:, None] + offset) % num_rows, env[:, None]
        done = self.columns["done"][rows, envs]
        included = done.cumsum(-1) - done.long() == 0  # no earlier step ended the episode
        broken = ~(self.columns["continues"] | self.columns["terminated"])[rows, envs]
        usable = self.columns["mask"][row % num_rows, env] & ~(included & broken).any(-1)
        row, env, rows, envs, included = row[usable], env[usable], rows[usable], envs[usable], included[usable]
        steps = included.sum(-1)
        reward = self.columns["reward"][rows, envs]
        return Transitions(
            observation=self.columns["observation"][row % num_rows, env],
            action=self.columns["action"][row % num_rows, env],
            reward=(included * self.gamma**offset * reward).sum(-1),
            terminated=self.columns["terminated"][(row + steps - 1) % num_rows, env],
            next_observation=self.columns["observation"][(row + steps) % num_rows, env],
            discount=self.gamma**steps,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the content as plain data."""
        return {"num_added": self.num_added, "last_observation": self._last_observation, "columns": self.columns}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state returned by ``state_dict``."""
        self.num_added, self.columns = state["num_added"], dict(state["columns"])
        self._last_observation = state["last_observation"]


def _equal(x: Shaped[Tensor, "..."], y: Shaped[Tensor, "..."], dims: int) -> Bool[Tensor, "..."]:
    """Return whether observations are equal, elementwise over the first ``dims`` dimensions."""
    return (x == y).flatten(dims).all(-1) if x.ndim > dims else x == y
