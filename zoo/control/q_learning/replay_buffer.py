from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from zoo.control.rollout import Rollout


class Transitions(NamedTuple):
    """What Q-learning learns from, in no order: one step of an episode each, or several taken together."""

    observation: Shaped[Tensor, "batch ..."]
    action: Int[Tensor, " batch"]
    """The one taken at ``observation``."""
    reward: Float[Tensor, " batch"]
    """Discounted sum over the steps."""
    terminated: Bool[Tensor, " batch"]
    """Nothing follows the last of the steps."""
    following: Shaped[Tensor, "batch ..."]
    """What the last of the steps led to."""
    discount: Float[Tensor, " batch"]
    """``γ`` to the power of the number of steps: the weight of what follows."""


def single_steps(rollout: Rollout, gamma: float) -> Transitions:
    """Take a rollout apart into its valid steps."""
    valid = rollout.valid
    reward = rollout.reward[valid]
    return Transitions(
        observation=rollout.observation[valid],
        action=rollout.action[valid],
        reward=reward,
        terminated=rollout.terminated[valid],
        following=rollout.following[valid],
        discount=torch.full_like(reward, gamma),
    )


DRAWS = 1000  # tries to fill a batch: far more than it takes, unless hardly any step can be used
KEPT = ("observation", "action", "reward", "terminated", "ended", "valid")


class Replay:
    """The latest steps of all environments, to learn from again and in another order.

    Lin, "Self-improving reactive agents based on reinforcement learning, planning and teaching", 1992. A ring of rows,
    one for each step of all environments. An observation is kept once, in its own type: what a step led to stands in
    the next row, for which the newest rows wait. (A stack of frames is kept as such.) Where it does not stand there,
    as an environment was reset before its episode was over, nothing is learned from the step.

    Args:
        buffer_size: steps kept, of all environments together.
        n_steps: steps that a transition takes together, ``n``, or fewer where the episode ends before.
        gamma: the discount between two steps.

    Raises:
        ValueError: ``n_steps`` is not positive.
    """

    def __init__(self, buffer_size: int, n_steps: int, gamma: float):
        if n_steps < 1:
            raise ValueError(f"n_steps must be at least 1, got {n_steps}")
        self.buffer_size, self.n_steps, self.gamma = buffer_size, n_steps, gamma
        self.written = 0
        self.rows: dict[str, Tensor] = {}
        self.latest = torch.empty(0)

    def add(self, rollout: Rollout) -> None:
        """Keep the steps of a rollout in place of the oldest ones.

        Raises:
            ValueError: the buffer is too small for it.
        """
        steps, envs = rollout.action.shape
        length = self.buffer_size // envs
        if length < steps + self.n_steps:
            raise ValueError(
                f"a replay buffer of {self.buffer_size} steps is too small for rollouts of {steps} steps of {envs} "
                f"environments; it must hold at least {envs * (steps + self.n_steps)}"
            )
        columns = {name: getattr(rollout, name) for name in KEPT}
        columns["linked"] = torch.zeros_like(rollout.valid)
        columns["linked"][:-1] = same(rollout.following[:-1], rollout.observation[1:], dims=2)
        if not self.rows:
            self.rows = {name: column.new_zeros(length, *column.shape[1:]) for name, column in columns.items()}
        if self.written:
            self.rows["linked"][(self.written - 1) % length] = same(self.latest, rollout.observation[0], dims=1)
        places = torch.arange(self.written, self.written + steps) % length
        for name, column in columns.items():
            self.rows[name][places] = column
        self.written += steps
        self.latest = rollout.following[-1].clone()

    @property
    def kept(self) -> int:
        """Steps of each environment that are remembered; draws need more than ``n_steps`` of them."""
        return min(self.written, len(self.rows["valid"])) if self.rows else 0

    def sample(self, size: int) -> Transitions:
        """Draw transitions with replacement, all with the same probability.

        Raises:
            ValueError: there is nothing to draw yet, or next to nothing that can be learned from.
        """
        if self.kept <= self.n_steps:
            raise ValueError(f"the replay buffer holds {self.kept} steps, none of them followed by {self.n_steps} more")
        drawn = self.draw(size)
        for _ in range(DRAWS):
            if (missing := size - len(drawn.action)) == 0:
                return drawn
            drawn = Transitions(*map(torch.cat, zip(drawn, self.draw(missing), strict=True)))
        raise ValueError(
            f"hardly any of the {self.kept} steps in the replay buffer is followed by {self.n_steps} of its episode or "
            "by its end, and nothing can be learned from the others: set a smaller n_steps, or a larger learning_starts"
        )

    def draw(self, size: int) -> Transitions:
        """Draw as many times, and leave out draws from which nothing can be learned."""
        device, envs = self.rows["valid"].device, self.rows["valid"].shape[1]
        row = self.written - self.kept + torch.randint(self.kept - self.n_steps, (size,), device=device)
        env = torch.randint(envs, (size,), device=device)
        return self.transitions(row, env)

    def transitions(self, row: Int[Tensor, " draws"], env: Int[Tensor, " draws"]) -> Transitions:
        """Take the ``n`` steps from each usable place on together, up to the end of the episode."""
        length, ahead = len(self.rows["valid"]), torch.arange(self.n_steps, device=row.device)
        places, envs = (row[:, None] + ahead) % length, env[:, None]
        ended = self.rows["ended"][places, envs]
        taken = ended.cumsum(-1) - ended.long() == 0  # none of the steps before this one ended the episode
        broken = ~(self.rows["linked"] | self.rows["terminated"])[places, envs]
        usable = self.rows["valid"][row % length, env] & ~(taken & broken).any(-1)
        row, env, places, envs, taken = row[usable], env[usable], places[usable], envs[usable], taken[usable]
        steps = taken.sum(-1)
        reward = self.rows["reward"][places, envs]
        return Transitions(
            observation=self.rows["observation"][row % length, env],
            action=self.rows["action"][row % length, env],
            reward=(taken * self.gamma**ahead * reward).sum(-1),
            terminated=self.rows["terminated"][(row + steps - 1) % length, env],
            following=self.rows["observation"][(row + steps) % length, env],
            discount=self.gamma**steps,
        )

    def state_dict(self) -> dict[str, Any]:
        """Give all that is kept, as plain data."""
        return {"written": self.written, "latest": self.latest, "rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep what the state kept."""
        self.written, self.latest, self.rows = state["written"], state["latest"], dict(state["rows"])


def same(one: Shaped[Tensor, "..."], other: Shaped[Tensor, "..."], dims: int) -> Bool[Tensor, "..."]:
    """Whether two observations are equal, for each of the environments that the first dimensions count."""
    return (one == other).flatten(dims).all(-1) if one.ndim > dims else one == other
