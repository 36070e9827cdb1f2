from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Float, Int
from torch import Tensor

from zoo.control.envs.mdp import FiniteMDP

_Array = np.ndarray


class MDPVectorEnv(VectorEnv[_Array, _Array, _Array]):
    """Vector environment of a finite MDP whose sub-environments step together as tensors.

    ``step_tensor`` takes and returns tensors, ``step`` NumPy arrays that share their memory. The autoreset mode is
    next-step, Gymnasium's default: the step after the end of an episode ignores the action and returns the first state
    of the next episode with reward 0.

    Example:
        >>> import gymnasium
        >>> envs = MDPVectorEnv(FiniteMDP.from_gymnasium(gymnasium.make("CliffWalking-v1"), 1.0), num_envs=2)
        >>> envs.reset(seed=0)[0].tolist()
        [36, 36]
        >>> envs.step_tensor(torch.tensor([0, 1]))[:2]  # up, and off the cliff
        (tensor([24, 36]), tensor([  -1., -100.], dtype=torch.float64))
    """

    def __init__(self, mdp: FiniteMDP, num_envs: int):
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}")
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.single_observation_space, self.single_action_space = Discrete(mdp.num_states), Discrete(mdp.num_actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._num_actions, self._horizon = mdp.num_actions, mdp.horizon
        # Only the few states that can follow are kept, so that a sample costs a handful of comparisons.
        num_successors = int((mdp.transition > 0).sum(-1).max())
        probability, self._successor = mdp.transition.flatten(0, 1).topk(num_successors)
        self._cumulative = probability.cumsum(-1)[:, :-1]
        self._reward = mdp.reward.flatten(0, 1).gather(-1, self._successor)
        self._terminates = mdp.terminated.flatten(0, 1).gather(-1, self._successor)
        self._initial_cumulative = mdp.initial.cumsum(-1)[:-1]
        self.generator = torch.Generator()
        self.reset()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[_Array, dict[str, Any]]:
        """Reset all sub-environments; a seed also resets the random number generator."""
        if seed is not None:
            self.generator.manual_seed(seed)
        self.state = self._sample_initial()
        self.step_count = torch.zeros_like(self.state)
        self.done = torch.zeros_like(self.state, dtype=torch.bool)
        return self.state.numpy(), {}

    def step(self, actions: _Array) -> tuple[_Array, _Array, _Array, _Array, dict[str, Any]]:
        """Return next states, rewards, ``terminated``, ``truncated`` and an empty info."""
        state, reward, terminated, truncated = self.step_tensor(torch.as_tensor(actions))
        return state.numpy(), reward.numpy(), terminated.numpy(), truncated.numpy(), {}

    def step_tensor(
        self, actions: Int[Tensor, " envs"]
    ) -> tuple[Int[Tensor, " envs"], Float[Tensor, " envs"], Bool[Tensor, " envs"], Bool[Tensor, " envs"]]:
        """Return next states, rewards, ``terminated`` and ``truncated``."""
        row = self.state * self._num_actions + actions
        column = (self._uniform()[:, None] >= self._cumulative[row]).sum(-1)
        resetting = self.done
        self.state = torch.where(resetting, self._sample_initial(), self._successor[row, column])
        self.step_count = (self.step_count + 1).masked_fill(resetting, 0)
        reward = self._reward[row, column].masked_fill(resetting, 0)
        terminated = self._terminates[row, column] & ~resetting
        truncated = torch.zeros_like(resetting) if self._horizon is None else self.step_count >= self._horizon
        self.done = terminated | truncated
        return self.state, reward, terminated, truncated

    def state_dict(self) -> dict[str, Tensor]:
        """Return states, step counts and the random state."""
        return {
            "state": self.state,
            "step_count": self.step_count,
            "done": self.done,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore a state returned by ``state_dict``."""
        if len(state["state"]) != self.num_envs:
            raise ValueError(f"the saved state has {len(state['state'])} sub-environments, expected {self.num_envs}")
        self.state, self.step_count, self.done = state["state"], state["step_count"], state["done"]
        self.generator.set_state(state["generator"])

    def _uniform(self) -> Float[Tensor, " envs"]:
        return torch.rand(
            self.num_envs, generator=self.generator, dtype=self._cumulative.dtype, device=self.generator.device
        )

    def _sample_initial(self) -> Int[Tensor, " envs"]:
        return torch.searchsorted(self._initial_cumulative, self._uniform(), right=True)
