from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Float, Int
from torch import Tensor

from zoo.control.envs.mdp import FiniteMDP

Array = np.ndarray


class MDPVectorEnv(VectorEnv[Array, Array, Array]):
    """Many episodes of a finite MDP that step together as tensors: thousands cost little more than one.

    ``advance`` takes and gives tensors; ``step`` is the same behind Gymnasium's interface, without a copy. The mode of
    reset is Gymnasium's default: the step after the last of an episode ignores the action and gives the first state of
    the next episode, with reward 0.

    Args:
        mdp: the process; episodes are truncated at its horizon.
        num_envs: episodes under way at once.

    Raises:
        ValueError: ``num_envs`` is not positive.

    Example:
        >>> import gymnasium
        >>> environments = MDPVectorEnv(FiniteMDP.from_gymnasium(gymnasium.make("CliffWalking-v1"), 1.0), num_envs=2)
        >>> environments.reset(seed=0)[0].tolist()
        [36, 36]
        >>> environments.advance(torch.tensor([0, 1]))[:2]  # up, and off the cliff
        (tensor([24, 36]), tensor([  -1., -100.], dtype=torch.float64))
    """

    def __init__(self, mdp: FiniteMDP, num_envs: int):
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}")
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.single_observation_space, self.single_action_space = Discrete(mdp.states), Discrete(mdp.actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.actions, self.horizon = mdp.actions, mdp.horizon
        # Only few states can follow any one step: without the others a draw costs a handful of comparisons.
        followers = int((mdp.transition > 0).sum(-1).max())
        probability, self.follower = mdp.transition.flatten(0, 1).topk(followers)
        self.below = probability.cumsum(-1)[:, :-1]
        self.reward = mdp.reward.flatten(0, 1).gather(-1, self.follower)
        self.terminates = mdp.terminated.flatten(0, 1).gather(-1, self.follower)
        self.starts_below = mdp.initial.cumsum(-1)[:-1]
        self.generator = torch.Generator()
        self.reset()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Begin all episodes anew; with a seed, also the random numbers."""
        if seed is not None:
            self.generator.manual_seed(seed)
        self.state = self._first_states()
        self.elapsed = torch.zeros_like(self.state)
        self.over = torch.zeros_like(self.state, dtype=torch.bool)
        return self.state.numpy(), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Give the next states, the rewards, which episodes terminated and which were truncated, and no more."""
        state, reward, terminated, truncated = self.advance(torch.as_tensor(actions))
        return state.numpy(), reward.numpy(), terminated.numpy(), truncated.numpy(), {}

    def advance(
        self, actions: Int[Tensor, " envs"]
    ) -> tuple[Int[Tensor, " envs"], Float[Tensor, " envs"], Bool[Tensor, " envs"], Bool[Tensor, " envs"]]:
        """Give the next states, the rewards, which episodes terminated and which were truncated."""
        entry = self.state * self.actions + actions
        which = (self._uniform()[:, None] >= self.below[entry]).sum(-1)
        begins = self.over
        self.state = torch.where(begins, self._first_states(), self.follower[entry, which])
        self.elapsed = (self.elapsed + 1).masked_fill(begins, 0)
        reward = self.reward[entry, which].masked_fill(begins, 0)
        terminated = self.terminates[entry, which] & ~begins
        truncated = torch.zeros_like(begins) if self.horizon is None else self.elapsed >= self.horizon
        self.over = terminated | truncated
        return self.state, reward, terminated, truncated

    def state_dict(self) -> dict[str, Tensor]:
        """Give all that decides what comes next."""
        return {
            "state": self.state,
            "elapsed": self.elapsed,
            "over": self.over,
            "random": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on where the state was taken.

        Raises:
            ValueError: the state is of another number of episodes.
        """
        if len(state["state"]) != self.num_envs:
            raise ValueError(f"the state is of {len(state['state'])} episodes under way, not of {self.num_envs}")
        self.state, self.elapsed, self.over = state["state"], state["elapsed"], state["over"]
        self.generator.set_state(state["random"])

    def _uniform(self) -> Float[Tensor, " envs"]:
        return torch.rand(self.num_envs, generator=self.generator, dtype=self.below.dtype, device=self.generator.device)

    def _first_states(self) -> Int[Tensor, " envs"]:
        return torch.searchsorted(self.starts_below, self._uniform(), right=True)
