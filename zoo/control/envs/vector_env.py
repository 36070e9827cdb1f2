import math
import warnings
from collections.abc import Mapping
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

from zoo.constraints import COUNT, check_constraints
from zoo.control.envs.registration import registered
from zoo.control.envs.spaces import UnsupportedSpaceError, check_observation_space, environment_actions
from zoo.control.envs.wrappers import CheckedStep, EnvironmentFailure, ForgetAction, NumberedObservation

ALE_SEEDS = 2**31 - 2**16  # of its vector environments, which count on from a seed of 32 bits for each copy
LONGEST_EPISODE = 10_000  # steps, where an environment knows no end
HALF_AN_HOUR = 108_000  # frames after which Atari's games are registered to end: a guard, far beyond most episodes
OF_MAKE_VEC = ("id", "num_envs", "vectorization_mode", "vector_kwargs", "wrappers", "disable_env_checker")


def make_environments(name: str, count: int, numbered: bool = False, **options: Any) -> VectorEnv:
    """Make copies of a registered environment that step together.

    The environment's own vector implementation, where it has one, else its copies one after the other. Observations
    that are no arrays come flattened to one, as by ``gymnasium.spaces.utils.flatten``; episodes that know no end are
    cut after ``LONGEST_EPISODE`` steps.

    Args:
        name: an id of Gymnasium's registry.
        count: how many copies.
        numbered: show the positions of observations among all, for a table.
        options: keyword arguments of the environment, and ``max_episode_steps``, after which episodes are cut.

    Raises:
        ValueError: there is no such environment, and the nearest ones are named; its package is missing; its
            observations cannot be read, or not be numbered; an option is none of the environment; or there is to be
            none.
        EnvironmentFailure: it raised an error while it was made.

    Example:
        >>> make_environments("CartPole-v1", count=4).single_action_space
        Discrete(2)
    """
    if count < 1:
        raise ValueError(f"there must be at least 1 environment to act in, got {count}")
    spec = registered(name)
    options = checked_options(spec, options)
    with warnings.catch_warnings():
        # MinAtar's v1 is no newer than its v0: one has the actions that a game needs, the other those of all games.
        # Of the others' older versions the user chose one.
        warnings.filterwarnings("ignore", ".* is out of date")
        try:
            vector = None if numbered or spec.vector_entry_point is None else gymnasium.make_vec(name, count, **options)
            if vector is not None and not isinstance(vector.single_observation_space, Box):
                vector.close()
                vector = None
            if vector is None:
                vector = make_copies(name, count, numbered, **options)
        except UnsupportedSpaceError:
            raise
        except (DependencyNotInstalled, ImportError) as error:
            raise ValueError(f"environment {name} needs a package that is not installed: {error}") from error
        except (Exception, SystemExit) as error:
            raise failure(name, error, " while it was made") from error
    return vector


def make_copies(name: str, copies: int, numbered: bool, **options: Any) -> VectorEnv:
    """Make copies that step one after the other, whatever their observations and infos are.

    Raises:
        UnsupportedSpaceError: their observations cannot be read, or not be numbered.
    """
    wrappers: list[Any] = [CheckedStep, *([ForgetAction] if name.startswith("MinAtar/") else [])]

    def wrapped(env: gymnasium.Env) -> gymnasium.Env:
        if numbered:
            return NumberedObservation(env)
        check_observation_space(env.observation_space, name)
        return env if isinstance(env.observation_space, Box) else FlattenObservation(env)

    wrappers.append(wrapped)
    return gymnasium.make_vec(name, copies, "sync", wrappers=wrappers, disable_env_checker=True, **options)


def checked_options(spec: EnvSpec, options: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the options of an environment by the longest episode, where it is not registered.

    Raises:
        ValueError: an option is one that is set elsewhere, or ``max_episode_steps`` is not a number of steps.
    """
    if taken := sorted(set(options) & set(OF_MAKE_VEC)):
        raise ValueError(f"env_kwargs.{taken[0]} is no option of an environment: leave it away")
    steps = options.get("max_episode_steps")
    if steps is not None:
        check_constraints({"max_episode_steps": steps}, {"max_episode_steps": COUNT})
    if frames := frame_limit(spec, options):  # Atari's own counter of frames, which its vector environment has alone
        if steps is None or spec.vector_entry_point is None:
            return dict(options)
        others = {key: value for key, value in options.items() if key != "max_episode_steps"}
        return {**others, "max_num_frames_per_episode": min(frames, steps * frames_a_step(spec, options))}
    if steps is None and spec.vector_entry_point is None and spec.max_episode_steps is None:
        return {**options, "max_episode_steps": LONGEST_EPISODE}
    return dict(options)


def frame_limit(spec: EnvSpec, options: Mapping[str, Any]) -> int | None:
    """Frames after which one of Atari's games cuts an episode by itself; None in other environments."""
    found: int | None = {**spec.kwargs, **options}.get("max_num_frames_per_episode")
    return found


def frames_a_step(spec: EnvSpec, options: Mapping[str, Any]) -> int:
    """Frames that an action of one of Atari's games takes, at least."""
    frames = {**spec.kwargs, **options}.get("frameskip", 4)
    return int(np.min(frames))


def make_evaluation_environments(name: str, count: int, **options: Any) -> VectorEnv:
    """Make copies to measure policies in: as ``make_environments``, but Atari's games with their true scores.

    Those games clip rewards to ±1, which is good to learn from and tells little of the score.

    Raises:
        ValueError: as ``make_environments``.
        EnvironmentFailure: as ``make_environments``.

    Example:
        >>> make_evaluation_environments("CartPole-v1", count=4).num_envs
        4
    """
    scores = {"reward_clipping": False} if name.startswith("ALE/") else {}
    return make_environments(name, count, **{**scores, **options})


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
        self.mode = autoreset_mode(vector)
        if self.mode not in set(AutoresetMode):
            raise ValueError(f"{self.name} does not say how it resets: metadata['autoreset_mode'] is {self.mode!r}")
        self.observation: Any = None
        self.ended = np.zeros(len(self), dtype=bool)
        self.remembers = plain_state(vector) is not None
        self.counts_from_zero = isinstance(self.action_space, Discrete) and self.action_space.start == 0
        self.foreign: bool | None = None

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
    def own_observation_space(self) -> Space:
        """Of one environment, before observations are flattened or numbered for the policy."""
        copies = getattr(self.vector, "envs", [])
        if not copies:
            return self.vector.single_observation_space
        env = copies[0]
        while isinstance(env, FlattenObservation | NumberedObservation):
            env = env.env
        return env.observation_space

    @property
    def reward_threshold(self) -> float | None:
        """Mean return from which on the task is registered as solved; None if it is not said."""
        threshold = None if self.vector.spec is None else self.vector.spec.reward_threshold
        return None if threshold is None else float(threshold)

    @property
    def episode_limit(self) -> int | None:
        """Steps after which an episode is cut, as the environment is registered or was made; None if that is not said.

        A guard against endless episodes says nothing of how long they are: ours, and that of Atari's games.
        """
        limit = self._limit
        return None if limit in (LONGEST_EPISODE, self._guard) else limit

    @property
    def longest_episode(self) -> int:
        """Steps after which an episode is cut at the latest."""
        return self._limit or LONGEST_EPISODE

    @property
    def _limit(self) -> int | None:
        spec = self.vector.spec
        if spec is None:
            return None
        limit: int | None = spec.kwargs.get("max_episode_steps", spec.max_episode_steps)
        if limit is None and (frames := frame_limit(spec, {})):
            return math.ceil(frames / frames_a_step(spec, {}))
        return limit

    @property
    def _guard(self) -> int | None:
        spec = self.vector.spec
        return None if spec is None else math.ceil(HALF_AN_HOUR / frames_a_step(spec, {}))

    def __len__(self) -> int:
        """Count the environments."""
        return self.vector.num_envs

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode in each environment; with a seed, also their random numbers.

        Raises:
            EnvironmentFailure: the environment raised an error.
        """
        if seed is not None and type(self.vector.unwrapped).__module__.startswith("ale_py."):
            seed %= ALE_SEEDS
        self.observation = self._reset(seed=seed)
        self.ended = np.zeros(len(self), dtype=bool)

    def step(self, action: Shaped[Tensor, " envs *action"]) -> Step:
        """Take an action in each environment: a choice counted from 0, or coordinates, which are clipped.

        Raises:
            EnvironmentFailure: the environment raised an error.
        """
        resetting = self.ended if self.mode is AutoresetMode.NEXT_STEP else np.zeros_like(self.ended)
        try:
            following, reward, terminated, truncated, info = self.vector.step(self._own(action.numpy()))
        except EnvironmentFailure:
            raise
        except (Exception, SystemExit) as error:
            raise failure(self.name, error) from error
        if self.foreign is None:
            self.foreign = self._are_foreign(following, reward, terminated, truncated)
        if self.foreign:
            following, reward, terminated, truncated = map(writable, (following, reward, terminated, truncated))
        self.observation = following
        self.ended = terminated | truncated
        if self.mode is not AutoresetMode.NEXT_STEP and self.ended.any():
            if self.mode is AutoresetMode.SAME_STEP:
                following = following.copy()
                following[self.ended] = np.stack(info["final_obs"][self.ended])
            else:
                self.observation = self._reset(options={"reset_mask": self.ended})
        return Step(following, reward, terminated, self.ended, ~resetting)

    def _own(self, action: np.ndarray) -> np.ndarray:
        return action if self.counts_from_zero else environment_actions(self.action_space, action)

    def _are_foreign(self, following: Any, *given: Any) -> bool:
        """Check the kinds of what a first step gave; true where it is not numpy's, or not writable."""
        reward, terminated, truncated = map(np.asarray, given)
        if reward.shape != self.ended.shape or terminated.dtype != bool or truncated.dtype != bool:
            raise EnvironmentFailure(
                f"{self.name} must give a number as reward and truth values as terminated and truncated for each of "
                f"{len(self)} environments; got arrays of shapes {reward.shape}, {terminated.shape}, "
                f"{truncated.shape} and types {reward.dtype}, {terminated.dtype}, {truncated.dtype}"
            )
        return any(not isinstance(array, np.ndarray) or not array.flags.writeable for array in (following, *given))

    def _reset(self, **how: Any) -> np.ndarray:
        try:
            observation, _ = self.vector.reset(**how)
        except (Exception, SystemExit) as error:
            raise failure(self.name, error, " in a reset") from error
        return writable(observation)

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


def writable(array: Any) -> np.ndarray:
    """Give an array of numpy that torch may share, of what a vector environment gave: JAX's are not writable."""
    array = np.asarray(array)
    return array if array.flags.writeable else array.copy()


def autoreset_mode(vector: VectorEnv) -> Any:
    """Look up how a vector environment resets.

    Its own attribute comes first: the metadata may be a class's, and so that of all others, in other modes.
    """
    inner: Any = vector.unwrapped
    said = vector.metadata.get("autoreset_mode") if vector.metadata is not VectorEnv.metadata else None
    return getattr(inner, "autoreset_mode", said)


def failure(name: str, error: BaseException, when: str = "") -> EnvironmentFailure:
    """Say in a sentence which environment raised which error; a signal, which is no error of its, is raised again."""
    if isinstance(error, SystemExit) and type(error) is not SystemExit:  # as Lightning raises it for SIGTERM
        raise error
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
