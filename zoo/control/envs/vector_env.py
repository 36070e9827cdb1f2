from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.spaces import Discrete, Space
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers import FlattenObservation
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from zoo.control.envs._registration import expected_episode_length, max_episode_steps
from zoo.control.envs._spaces import space_to_dict, to_env_actions
from zoo.control.envs._wrappers import EnvError, IndexObservation

_MAX_ALE_SEED = 2**31 - 2**16  # Atari's vector environments add the index of each sub-environment to a 32-bit seed


class StepResult(NamedTuple):
    """Result of one action in each sub-environment.

    Example:
        >>> StepResult._fields
        ('next_observation', 'reward', 'terminated', 'done', 'mask')
    """

    next_observation: Shaped[np.ndarray, " envs *observation"]
    """Observation after the action, before any reset."""
    reward: Float[np.ndarray, " envs"]
    terminated: Bool[np.ndarray, " envs"]
    """True if the task ended, even if it was truncated at the same step."""
    done: Bool[np.ndarray, " envs"]
    """Terminated or truncated."""
    mask: Bool[np.ndarray, " envs"]
    """False where the action was ignored because the sub-environment was reset."""


class VectorEnvAdapter:
    """Adapter that hides the autoreset mode of a vector environment.

    ``observation`` is the one to act on next, ``StepResult.next_observation`` the one before any reset. In next-step
    mode the step after the end of an episode only resets and is masked; in same-step mode the final observation is
    taken from the info; in disabled mode the adapter resets the sub-environments that are done.

    Args:
        vector_env: vector environment in any autoreset mode.

    Raises:
        ValueError: the environment does not declare its autoreset mode.

    Example:
        >>> from zoo.control.envs import make_vector_env
        >>> envs = VectorEnvAdapter(make_vector_env("CartPole-v1", num_envs=2))
        >>> envs.reset(seed=1)
        >>> envs.step(torch.tensor([0, 1])).reward
        array([1., 1.], dtype=float32)
    """

    name: str
    """Id of the environment, or its class if it has none."""
    reward_threshold: float | None
    """Registered mean return at which the task counts as solved."""
    expected_episode_length: int | None
    """The time limit in steps, if episodes are likely to last that long; None if there is none, or if it only guards
    against endless episodes."""
    max_episode_steps: int
    """The time limit in steps, also one that only guards against endless episodes; 10,000 if there is none. The adapter
    itself truncates nothing."""

    def __init__(self, vector_env: VectorEnv):
        self.vector_env = vector_env
        spec = vector_env.spec
        self.name = type(vector_env).__name__ if spec is None else str(spec.id)
        self.observation_shape = tuple(vector_env.single_observation_space.shape or ())
        self.action_space = vector_env.single_action_space
        threshold = None if spec is None else spec.reward_threshold
        self.reward_threshold = None if threshold is None else float(threshold)
        self.expected_episode_length = expected_episode_length(spec)
        self.max_episode_steps = max_episode_steps(spec)
        self.autoreset_mode = _autoreset_mode(vector_env)
        if self.autoreset_mode not in set(AutoresetMode):
            raise ValueError(
                f"{self.name} does not declare how it resets: metadata['autoreset_mode'] is {self.autoreset_mode!r}"
            )
        self.observation: Any = None
        self.done = np.zeros(len(self), dtype=bool)
        self.can_save_state = _get_state(vector_env) is not None
        self._zero_based = isinstance(self.action_space, Discrete) and self.action_space.start == 0
        self._needs_copy: bool | None = None

    @property
    def spaces(self) -> dict[str, Any]:
        """Spaces of a sub-environment as plain data for ``predict``.

        The observation space is that before wrappers flatten observations or replace them by their index.
        """
        sub_envs = getattr(self.vector_env, "envs", [])
        space = self.vector_env.single_observation_space
        if sub_envs:
            env = sub_envs[0]
            while isinstance(env, FlattenObservation | IndexObservation):
                env = env.env
            space = env.observation_space
        return {"observation": space_to_dict(space), "action": space_to_dict(self.action_space)}

    def __len__(self) -> int:
        """Return the number of sub-environments."""
        return self.vector_env.num_envs

    def reset(self, seed: int | None = None) -> None:
        """Reset all sub-environments; a seed also resets their random number generators."""
        if seed is not None and type(self.vector_env.unwrapped).__module__.startswith("ale_py."):
            seed %= _MAX_ALE_SEED
        self.observation = self._reset(seed=seed)
        self.done = np.zeros(len(self), dtype=bool)

    def step(self, action: Shaped[Tensor, " envs *action"]) -> StepResult:
        """Take one action in each sub-environment: indices counted from 0, or coordinates, which are clipped.

        Raises:
            EnvError: the environment raised an error, or returned values of a wrong shape or type.
        """
        resetting = self.done if self.autoreset_mode is AutoresetMode.NEXT_STEP else np.zeros_like(self.done)
        actions = action.numpy()
        if not self._zero_based:
            actions = to_env_actions(self.action_space, actions)
        try:
            observation, reward, terminated, truncated, info = self.vector_env.step(actions)
        except EnvError:
            raise
        except (Exception, SystemExit) as error:
            raise EnvError.wrapping(self.name, error) from error
        if self._needs_copy is None:
            self._check_types(reward, terminated, truncated)
            self._needs_copy = not all(map(_is_writable, (observation, reward, terminated, truncated)))
        if self._needs_copy:
            observation, reward, terminated, truncated = map(_writable, (observation, reward, terminated, truncated))
        self.observation = observation
        self.done = terminated | truncated
        if self.autoreset_mode is not AutoresetMode.NEXT_STEP and self.done.any():
            if self.autoreset_mode is AutoresetMode.SAME_STEP:
                observation = observation.copy()
                observation[self.done] = np.stack(info["final_obs"][self.done])
            else:
                self.observation = self._reset(options={"reset_mask": self.done})
        return StepResult(observation, reward, terminated, self.done, ~resetting)

    def _check_types(self, *results: Any) -> None:
        """Check shapes and types of reward, terminated and truncated."""
        reward, terminated, truncated = map(np.asarray, results)
        if reward.shape != self.done.shape or terminated.dtype != bool or truncated.dtype != bool:
            raise EnvError(
                f"{self.name} must return a number as reward and booleans as terminated and truncated for each of "
                f"{len(self)} environments; got arrays of shapes {reward.shape}, {terminated.shape}, "
                f"{truncated.shape} and types {reward.dtype}, {terminated.dtype}, {truncated.dtype}"
            )

    def _reset(self, **options: Any) -> np.ndarray:
        try:
            observation, _ = self.vector_env.reset(**options)
        except (Exception, SystemExit) as error:
            raise EnvError.wrapping(self.name, error, " in a reset") from error
        return _writable(observation)

    def state_dict(self) -> dict[str, Any] | None:
        """Return the complete state as plain data; None if the environments cannot save theirs."""
        state = _get_state(self.vector_env)
        if state is None:
            return None
        observation, done = (torch.from_numpy(x.copy()) for x in (self.observation, self.done))
        return {"vector_env": state, "observation": observation, "done": done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state returned by ``state_dict``."""
        _set_state(self.vector_env, state["vector_env"])
        self.observation, self.done = state["observation"].numpy().copy(), state["done"].numpy().copy()


def _is_writable(array: Any) -> bool:
    return isinstance(array, np.ndarray) and array.flags.writeable


def _writable(array: Any) -> np.ndarray:
    """Return a NumPy array whose memory torch may share: those of JAX environments are read-only."""
    array = np.asarray(array)
    return array if array.flags.writeable else array.copy()


def _autoreset_mode(vector_env: VectorEnv) -> Any:
    # The attribute has priority: ``metadata`` may belong to the class, whose other instances have another mode.
    metadata = vector_env.metadata
    declared = metadata.get("autoreset_mode") if metadata is not VectorEnv.metadata else None
    return getattr(vector_env.unwrapped, "autoreset_mode", declared)


def _get_state(vector_env: VectorEnv) -> dict[str, Any] | None:
    """Return arrays, numbers and random state as plain data; None if there is other state, such as sub-environments."""
    if hasattr(vector_env, "state_dict"):
        return dict(vector_env.state_dict())
    state: dict[str, Any] = {}
    for name, value in vars(vector_env).items():
        if isinstance(value, np.ndarray):
            state[name] = torch.from_numpy(value.copy())
        elif isinstance(value, np.random.Generator):
            state[name] = value.bit_generator.state
        elif isinstance(value, np.generic):
            state[name] = value.item()
        elif isinstance(value, bool | int | float | str | None):
            state[name] = value
        elif name not in ("spec", "metadata") and not isinstance(value, Space):
            return None
    return state


def _set_state(vector_env: VectorEnv, state: dict[str, Any]) -> None:
    if hasattr(vector_env, "load_state_dict"):
        vector_env.load_state_dict(state)
        return
    for name, value in state.items():
        if isinstance(value, Tensor):
            setattr(vector_env, name, value.numpy().copy())
        elif isinstance(value, dict):
            vector_env.np_random.bit_generator.state = value
        else:
            setattr(vector_env, name, value)
