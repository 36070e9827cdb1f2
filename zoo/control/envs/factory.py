import warnings
from collections.abc import Mapping
from typing import Any

import gymnasium
from gymnasium.error import DependencyNotInstalled
from gymnasium.spaces import Box
from gymnasium.vector import VectorEnv
from gymnasium.wrappers import FlattenObservation

from zoo.control.envs._registration import check_env_kwargs, find_spec, with_time_limit
from zoo.control.envs._spaces import UnsupportedSpaceError, check_observation_space
from zoo.control.envs._wrappers import ClearLastAction, EnvError, IndexObservation, ValidateStep


def make_vector_env(env_id: str, num_envs: int, tabular: bool = False, **env_kwargs: Any) -> VectorEnv:
    """Make a vector environment of a registered environment.

    Uses the environment's own vector implementation if it has one, and a ``SyncVectorEnv`` otherwise. Observations that
    are not arrays are flattened by ``gymnasium.spaces.utils.flatten``, or with ``tabular`` replaced by their index
    among all observations. Episodes without a registered time limit are truncated after 10,000 steps. ``env_kwargs``
    are the environment's keyword arguments, and ``max_episode_steps``.

    Raises:
        ValueError: the environment is unknown (the message lists similar ids) or needs a package that is missing, its
            observation space is not supported, a keyword argument is reserved, or ``num_envs`` is not positive.
        EnvError: the environment raised an error while it was made.

    Example:
        >>> make_vector_env("CartPole-v1", num_envs=4).single_action_space
        Discrete(2)
    """
    if num_envs < 1:
        raise ValueError(f"num_envs must be at least 1, got {num_envs}")
    spec = find_spec(env_id)
    options = with_time_limit(spec, check_env_kwargs(env_kwargs))
    with warnings.catch_warnings():
        # Older versions are the user's choice. MinAtar's v1 is not even newer than v0: it has fewer actions.
        warnings.filterwarnings("ignore", ".* is out of date")
        try:
            if not tabular and spec.vector_entry_point is not None:
                native = gymnasium.make_vec(env_id, num_envs, **options)
                if isinstance(native.single_observation_space, Box):
                    return native
                native.close()
            return _make_sync_vector_env(env_id, num_envs, tabular, options)
        except UnsupportedSpaceError:
            raise
        except (DependencyNotInstalled, ImportError) as error:
            raise ValueError(f"environment {env_id} needs a package that is not installed: {error}") from error
        except (Exception, SystemExit) as error:
            raise EnvError.wrapping(env_id, error, " while it was made") from error


def make_eval_vector_env(env_id: str, num_envs: int, tabular: bool = False, **env_kwargs: Any) -> VectorEnv:
    """Make a vector environment for evaluation: as ``make_vector_env``, but Atari's games return unclipped rewards.

    Atari's games are registered with rewards clipped to ±1, which suits learning but hides the game's score.

    Example:
        >>> make_eval_vector_env("CartPole-v1", num_envs=4).num_envs
        4
    """
    unclipped = {"reward_clipping": False} if env_id.startswith("ALE/") else {}
    return make_vector_env(env_id, num_envs, tabular, **{**unclipped, **env_kwargs})


def _make_sync_vector_env(env_id: str, num_envs: int, tabular: bool, options: Mapping[str, Any]) -> VectorEnv:
    def to_array_observation(env: gymnasium.Env) -> gymnasium.Env:
        if tabular:
            return IndexObservation(env)
        check_observation_space(env.observation_space, env_id)
        return env if isinstance(env.observation_space, Box) else FlattenObservation(env)

    corrections = [ClearLastAction] if env_id.startswith("MinAtar/") else []
    wrappers: list[Any] = [ValidateStep, *corrections, to_array_observation]
    return gymnasium.make_vec(env_id, num_envs, "sync", wrappers=wrappers, disable_env_checker=True, **options)
