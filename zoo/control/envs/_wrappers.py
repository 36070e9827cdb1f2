"""Wrappers of single environments, applied before they are vectorized."""

import textwrap
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete, Space

from zoo.control.envs._spaces import UnsupportedSpaceError, element_index, num_elements

_MAX_TABLE_STATES = 2_000_000


class EnvError(RuntimeError):
    """An environment raised an error, returned invalid or non-finite values, or did not end an episode in time.

    Example:
        >>> raise EnvError.wrapping("Door-v0", KeyError("key"))
        Traceback (most recent call last):
        zoo.control.envs._wrappers.EnvError: Door-v0 raised KeyError: 'key'
    """

    @classmethod
    def wrapping(cls, env_id: str, error: BaseException, when: str = "") -> "EnvError":
        """Return an error whose message names the environment and the error it raised."""
        # A subclass of SystemExit is a signal, raised by Lightning and not by the environment.
        if isinstance(error, SystemExit) and type(error) is not SystemExit:
            raise error
        return cls(f"{env_id} raised {type(error).__name__}{when}: {error}")


class ValidateStep(gymnasium.Wrapper):
    """Checks reward, ``terminated`` and ``truncated`` of each step, and replaces the info by an empty one.

    Gymnasium's vector environments accept ``None`` as false and arrays of some shapes as reward, and fail to stack
    infos that differ in type or shape.
    """

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        observation, _ = self.env.reset(**options)
        return observation, {}

    def step(self, action: Any) -> tuple[Any, float | int, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, _ = self.env.step(action)
        if not isinstance(reward, float | int):
            reward = self._to_float(reward)
        if terminated is not True and terminated is not False:
            terminated = self._to_bool("terminated", terminated)
        if truncated is not True and truncated is not False:
            truncated = self._to_bool("truncated", truncated)
        return observation, reward, terminated, truncated, {}

    def _to_float(self, reward: Any) -> float:
        array = np.asarray(reward)
        if array.size != 1 or array.dtype.kind not in "biuf":
            raise EnvError(
                f"{env_name(self)} returned the reward {reward!r}, which must be one number; wrap the environment to "
                "return one, for example a weighted sum of several objectives"
            )
        return float(array.item())

    def _to_bool(self, name: str, value: Any) -> bool:
        if isinstance(value, np.bool_):
            return bool(value)
        array = np.asarray(value)
        if array.size != 1 or array.dtype.kind not in "biuf" or array.item() not in (0, 1):
            raise EnvError(f"{env_name(self)} returned {name}={value!r}, which must be true or false")
        return bool(array.item())


class ClearLastAction(gymnasium.Wrapper):
    """Clears the last action of MinAtar's games at each reset.

    MinAtar 1.0.15 does not clear it. With sticky actions, the first step could then repeat an action of the previous
    episode.
    """

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        game: Any = self.unwrapped
        game.game.last_action = 0
        return self.env.reset(**options)


class IndexObservation(gymnasium.ObservationWrapper):
    """Replaces an observation of a finite space by its index among all observations, the row of a table."""

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        self._space = env.observation_space
        if (states := num_elements(self._space)) is None or states > _MAX_TABLE_STATES:
            count = f"{states:,}" if states is not None and states < 1e15 else "far too many"
            raise UnsupportedSpaceError(
                f"a table needs a finite observation space of at most {_MAX_TABLE_STATES:,} elements, and that of "
                f"{env_name(env)} {'is not finite' if states is None else f'has {count}'}: "
                f"{shorten_space(self._space)}; choose model=dqn"
            )
        self.observation_space = Discrete(states)

    def observation(self, observation: Any) -> int:
        return element_index(self._space, observation)


def env_name(env: gymnasium.Env) -> str:
    """Return the id of an environment, or its class if it has none."""
    return type(env.unwrapped).__name__ if env.spec is None else str(env.spec.id)


def shorten_space(space: Space) -> str:
    """Return the ``repr`` of a space, shortened to one line."""
    return textwrap.shorten(" ".join(str(space).split()), 120, placeholder=" ...")
