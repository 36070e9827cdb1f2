"""What each copy of an environment is wrapped in before the copies step together."""

import textwrap
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete, Space

from zoo.control.envs.spaces import UnsupportedSpaceError, count, index

MOST_STATES = 2_000_000  # of a table


class EnvironmentFailure(RuntimeError):
    """An environment raised an error, or gave numbers that are not finite."""


class CheckedStep(gymnasium.Wrapper):
    """Returns one number as the reward, two truth values, and an empty info, which nothing here reads.

    Gymnasium's vector environments put the entries of all copies' infos into arrays, which fails where they differ in
    type or shape. They take ``None`` for false, and a reward of several numbers by accident if at all.
    """

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        observation, _ = self.env.reset(**options)
        return observation, {}

    def step(self, action: Any) -> tuple[Any, float | int, bool, bool, dict[str, Any]]:
        """Take an action.

        Raises:
            EnvironmentFailure: the reward is not one number, or ``terminated`` or ``truncated`` is neither true nor
                false.
        """
        observation, reward, terminated, truncated, _ = self.env.step(action)
        if not isinstance(reward, float | int):
            reward = self._number(reward)
        if terminated is not True and terminated is not False:
            terminated = self._flag("terminated", terminated)
        if truncated is not True and truncated is not False:
            truncated = self._flag("truncated", truncated)
        return observation, reward, terminated, truncated, {}

    def _number(self, reward: Any) -> float:
        array = np.asarray(reward)
        if array.size != 1 or array.dtype.kind not in "biuf":
            raise EnvironmentFailure(
                f"{self._name} gave the reward {reward!r}, and one number is needed; wrap the environment so that "
                "it gives one, for several objectives their weighted sum"
            )
        return float(array.item())

    def _flag(self, name: str, value: Any) -> bool:
        if isinstance(value, np.bool_):
            return bool(value)
        array = np.asarray(value)
        if array.size != 1 or array.dtype.kind not in "biuf" or array.item() not in (0, 1):
            raise EnvironmentFailure(f"{self._name} gave {name}={value!r}, which must be true or false")
        return bool(array.item())

    @property
    def _name(self) -> str:
        return name_of(self)


class ForgetAction(gymnasium.Wrapper):
    """MinAtar's games without the last action of the episode before.

    An action that sticks repeats the one before. At the first step of an episode that would be one of another episode,
    which neither ``reset`` nor a seed makes the game forget (MinAtar 1.0.15).
    """

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode, as if the last action had been the one of a new game."""
        game: Any = self.unwrapped
        game.game.last_action = 0
        return self.env.reset(**options)


class NumberedObservation(gymnasium.ObservationWrapper):
    """Shows the position of an observation among all, counted from 0: the row of a table.

    Args:
        env: its observations can be counted; see ``spaces.count``.

    Raises:
        UnsupportedSpaceError: they cannot, or there are too many for a table.
    """

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        self.numbered = env.observation_space
        if (states := count(self.numbered)) is None or states > MOST_STATES:
            how_many = f"{states:,} different" if states is not None and states < 1e15 else "far too many different"
            raise UnsupportedSpaceError(
                f"a table needs observations that can be counted, at most {MOST_STATES:,} different ones, and those of "
                f"{name_of(env)} are {'not' if states is None else how_many}: {shortened(self.numbered)}; "
                "choose model=dqn"
            )
        self.observation_space = Discrete(states)

    def observation(self, observation: Any) -> int:
        """Return the position."""
        return index(self.numbered, observation)


def name_of(env: gymnasium.Env) -> str:
    """Return the id of an environment, or its class where it has none."""
    return type(env.unwrapped).__name__ if env.spec is None else str(env.spec.id)


def shortened(space: Space) -> str:
    """Describe a space in at most a line."""
    return textwrap.shorten(" ".join(str(space).split()), 120, placeholder=" ...")
