import difflib
import importlib
import warnings
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import DependencyNotInstalled
from gymnasium.spaces import Box, Discrete, Space
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers import FlattenObservation
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

LONGEST_EPISODE = 10_000  # steps, where an environment knows no end
GAMES = {"MinAtar": "minatar.gym", "ALE": "ale_py"}  # what registers environments, by the first part of their ids


def make_environments(name: str, count: int, **options: Any) -> VectorEnv:
    """Make copies of a registered environment that step together.

    The environment's own vector implementation, where it has one, else its copies one after the other. Observations
    that are no arrays come flattened to one; episodes that know no end are cut after ``LONGEST_EPISODE`` steps.

    Args:
        name: an id of Gymnasium's registry.
        count: how many copies.
        options: of ``gymnasium.make_vec``.

    Raises:
        ValueError: there is no such environment, and the nearest ones are named; its package is missing; or there is
            to be none.
        EnvironmentFailure: it raised an error while it was made.

    Example:
        >>> make_environments("CartPole-v1", count=4).single_action_space
        Discrete(2)
    """
    if count < 1:
        raise ValueError(f"there must be at least 1 environment to act in, got {count}")
    spec = registered(name)
    if spec.vector_entry_point is None and spec.max_episode_steps is None:
        options = {"max_episode_steps": LONGEST_EPISODE, **options}
    with warnings.catch_warnings():
        # MinAtar's v1 is no newer than its v0: one has the actions that a game needs, the other those of all games.
        warnings.filterwarnings("ignore", ".*MinAtar/.* is out of date")
        try:
            vector = gymnasium.make_vec(name, num_envs=count, **options)
            if not isinstance(vector.single_observation_space, Box):
                vector.close()
                options = {"vectorization_mode": "sync", "wrappers": [FlattenObservation], **options}
                vector = gymnasium.make_vec(name, num_envs=count, **options)
        except (DependencyNotInstalled, ImportError) as error:
            raise ValueError(f"environment {name} needs a package that is not installed: {error}") from error
        except Exception as error:
            raise failure(name, error, " while it was made") from error
    return vector


def make_evaluation_environments(name: str, count: int) -> VectorEnv:
    """Make copies to measure policies in: as ``make_environments``, but Atari's games with their true scores.

    Those games clip rewards to ±1, which is good to learn from and tells little of the score.

    Raises:
        ValueError: as ``make_environments``.
        EnvironmentFailure: as ``make_environments``.

    Example:
        >>> make_evaluation_environments("CartPole-v1", count=4).num_envs
        4
    """
    options = {"reward_clipping": False} if name.startswith("ALE/") else {}
    return make_environments(name, count, **options)


def registered(name: str) -> EnvSpec:
    """Look an environment up in Gymnasium's registry.

    Raises:
        ValueError: it is not there, and the nearest ones are named; or it is a game whose package is not installed.
    """
    register_games(name.partition("/")[0])
    try:
        return gymnasium.spec(name)
    except gymnasium.error.Error as error:  # unknown, malformed, or of a version that is no more
        near = difflib.get_close_matches(name, gymnasium.registry, n=3, cutoff=0.4)
        hint = f"; the nearest are {', '.join(near)}" if near else ""
        raise ValueError(f"Gymnasium knows no environment {name!r}{hint}") from error


def register_games(collection: str) -> None:
    """Make the games of a collection known to Gymnasium, which does not look for them by itself.

    Raises:
        ValueError: its package is not installed.
    """
    if collection not in GAMES or any(name.startswith(f"{collection}/") for name in gymnasium.registry):
        return
    try:
        package = importlib.import_module(GAMES[collection])
    except ImportError as error:
        raise ValueError(f"the games of {collection} need a package: pip install -e '.[games]' ({error})") from error
    if hasattr(package, "register_envs"):  # the other one registers its games when it is imported
        package.register_envs()


class Step(NamedTuple):
    """What one action in each environment led to."""

    following: Shaped[np.ndarray, " envs *observation"]
    """The next state, before any reset."""
    reward: Float[np.ndarray, " envs"]
    terminated: Bool[np.ndarray, " envs"]
    """The task is over: nothing follows. This wins where it was cut as well."""
    ended: Bool[np.ndarray, " envs"]
    """Terminated, or cut by a time limit though something would have followed."""
    valid: Bool[np.ndarray, " envs"]
    """False where the action was ignored, as the environment began a new episode."""


class Environments:
    """Vector environment whose episodes end in the same way whatever its autoreset mode.

    ``observation`` is what to act on next. In the mode next-step a step after the end only resets, and is not valid; in
    same-step the end's observation is found in the info; in disabled the ended ones are reset here.

    Args:
        vector: of Gymnasium, in any autoreset mode.

    Raises:
        ValueError: the environment does not say its autoreset mode.

    Example:
        >>> environments = Environments(make_environments("CartPole-v1", count=2))
        >>> environments.reset(seed=1)
        >>> environments.step(torch.tensor([0, 1])).reward
        array([1., 1.], dtype=float32)
    """

    def __init__(self, vector: VectorEnv):
        self.vector = vector
        self.mode = vector.metadata.get("autoreset_mode")
        if self.mode not in set(AutoresetMode):
            raise ValueError(f"{self.name} does not say how it resets: metadata['autoreset_mode'] is {self.mode!r}")
        self.observation: Any = None
        self.ended = np.zeros(len(self), dtype=bool)
        space = vector.single_action_space
        self.remembers = plain_state(vector) is not None
        self.first_action = space.start if isinstance(space, Discrete) else 0
        self.bounds = (space.low, space.high) if isinstance(space, Box) else None

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self.vector.spec.id) if self.vector.spec is not None else type(self.vector).__name__

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Of one observation."""
        return tuple(self.vector.single_observation_space.shape or ())

    @property
    def action_space(self) -> Space:
        """Of one environment."""
        return self.vector.single_action_space

    @property
    def solved_at(self) -> float | None:
        """Mean return from which on the task is registered as solved; None if it is not said."""
        return self.vector.spec.reward_threshold if self.vector.spec is not None else None

    @property
    def longest_episode(self) -> int:
        """Steps after which an episode is cut."""
        limit = self.vector.spec.max_episode_steps if self.vector.spec is not None else None
        return limit or LONGEST_EPISODE

    def __len__(self) -> int:
        """Count the environments."""
        return self.vector.num_envs

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode in each environment; with a seed, also their random numbers.

        Raises:
            EnvironmentFailure: the environment raised an error.
        """
        self.observation = self._reset(seed=seed)
        self.ended = np.zeros(len(self), dtype=bool)

    def step(self, action: Shaped[Tensor, " envs *action"]) -> Step:
        """Take an action in each environment: a choice counted from 0, or coordinates, which are clipped.

        Raises:
            EnvironmentFailure: the environment raised an error.
        """
        resetting = self.ended if self.mode is AutoresetMode.NEXT_STEP else np.zeros_like(self.ended)
        try:
            following, reward, terminated, truncated, info = self.vector.step(self._own(action))
        except Exception as error:
            raise failure(self.name, error) from error
        self.observation = following
        self.ended = terminated | truncated
        if self.mode is not AutoresetMode.NEXT_STEP and self.ended.any():
            if self.mode is AutoresetMode.SAME_STEP:
                following = following.copy()
                following[self.ended] = np.stack(info["final_obs"][self.ended])
            else:
                self.observation = self._reset(options={"reset_mask": self.ended})
        return Step(following, reward, terminated, self.ended, ~resetting)

    def _reset(self, **how: Any) -> np.ndarray:
        try:
            observation, _ = self.vector.reset(**how)
        except Exception as error:
            raise failure(self.name, error, " in a reset") from error
        return observation

    def _own(self, action: Tensor) -> np.ndarray:
        array = action.numpy()
        if self.bounds is not None:
            return np.clip(array, *self.bounds).astype(self.bounds[0].dtype)
        return array + self.first_action if self.first_action else array

    def state_dict(self) -> dict[str, Any] | None:
        """Give the whole state as plain data; None where the environments cannot tell it."""
        inner = plain_state(self.vector)
        if inner is None:
            return None
        observation, ended = (torch.from_numpy(x.copy()) for x in (self.observation, self.ended))
        return {"vector": inner, "observation": observation, "ended": ended}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        set_plain_state(self.vector, state["vector"])
        self.observation, self.ended = state["observation"].numpy().copy(), state["ended"].numpy().copy()


class EnvironmentFailure(RuntimeError):
    """An environment raised an error, or gave numbers that are not finite."""


def failure(name: str, error: Exception, when: str = "") -> EnvironmentFailure:
    """Say in a sentence which environment raised which error."""
    return EnvironmentFailure(f"{name} raised {type(error).__name__}{when}: {error}")


PLAIN = (bool, int, float, str, type(None))


def plain_state(vector: VectorEnv) -> dict[str, Any] | None:
    """Read the arrays, numbers and random bit generator of a native vector environment as plain data.

    One with a ``state_dict`` of its own is asked for that.

    Returns:
        None if the environment keeps anything else that may change, such as environments inside it.
    """
    if hasattr(vector, "state_dict"):
        return dict(vector.state_dict())
    state: dict[str, Any] = {}
    for name, value in vars(vector).items():
        if isinstance(value, np.ndarray):
            state[name] = torch.from_numpy(value.copy())
        elif isinstance(value, np.random.Generator):
            state[name] = value.bit_generator.state
        elif isinstance(value, np.generic):
            state[name] = value.item()
        elif isinstance(value, PLAIN):
            state[name] = value
        elif name not in ("spec", "metadata") and not isinstance(value, Space):
            return None
    return state


def set_plain_state(vector: VectorEnv, state: dict[str, Any]) -> None:
    """Put a native vector environment into a state that ``plain_state`` gave."""
    if hasattr(vector, "load_state_dict"):
        vector.load_state_dict(state)
        return
    for name, value in state.items():
        if isinstance(value, Tensor):
            setattr(vector, name, value.numpy().copy())
        elif isinstance(value, dict):
            vector.np_random.bit_generator.state = value
        else:
            setattr(vector, name, value)
