"""Gymnasium's registry: look-up, import of packages that register environments, and time limits."""

import difflib
import importlib
import math
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec

from zoo._constraints import COUNT, check_constraints

MAX_EPISODE_STEPS = 10_000  # of environments that register no limit
_ATARI_MAX_FRAMES = 108_000  # limit that ale-py registers, far beyond most episodes
_RESERVED_KWARGS = {  # of gymnasium.make_vec and make_vector_env
    *("id", "num_envs", "vectorization_mode", "vector_kwargs", "wrappers", "disable_env_checker"),
    *("env_id", "tabular"),
}
_GAME_PACKAGES = {"MinAtar": "minatar.gym", "ALE": "ale_py"}  # by the namespace of their ids


def find_spec(env_id: str) -> EnvSpec:
    """Return the spec of a registered environment; the packages of games are imported for it.

    Raises:
        ValueError: the id is not registered (the message lists similar ids), or its package is not installed.

    Example:
        >>> find_spec("CartPole-v1").max_episode_steps
        500
    """
    register_games(env_id.partition("/")[0])
    try:
        return gymnasium.spec(env_id)
    except gymnasium.error.Error as error:  # unknown, malformed, or a version that was removed
        with suppress(ValueError):
            register_games("ALE")  # registers ids without a namespace as well, such as Pong-v4
        if env_id in gymnasium.registry:
            return gymnasium.spec(env_id)
        near = difflib.get_close_matches(env_id, gymnasium.registry, n=3, cutoff=0.4)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise ValueError(f"no environment {env_id!r} is registered in Gymnasium{hint}") from error


def register_games(namespace: str) -> None:
    """Register the games of a namespace, ``MinAtar`` or ``ALE``, whose package must be installed; ignore others."""
    if namespace not in _GAME_PACKAGES or any(name.startswith(f"{namespace}/") for name in gymnasium.registry):
        return
    try:
        package = importlib.import_module(_GAME_PACKAGES[namespace])
    except ImportError as error:
        raise ValueError(f"the games of {namespace} need a package: pip install -e '.[games]' ({error})") from error
    if hasattr(package, "register_envs"):  # ale_py registers its games when it is imported
        package.register_envs()


def import_env_module(env_id: str, trust: bool) -> str:
    """Import the module of ``module:Name-v0``, installed or in the current folder, if trusted; return ``Name-v0``."""
    module, colon, name = env_id.rpartition(":")
    if not colon:
        return env_id
    if not trust:
        raise ValueError(f"env={env_id} imports {module} and so runs its code: add trust=true if you trust it")
    if not all(part.isidentifier() for part in module.split(".")):
        raise ValueError(f"env={env_id} must be MODULE:NAME, and {module!r} is not the name of a Python module")
    sys.path.append(folder := str(Path.cwd()))
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ValueError(f"env={env_id}: {module} needs a package that is not installed: {error}") from error
        raise ValueError(f"env={env_id}: there is no module {module}, neither installed nor in {folder}") from error
    except Exception as error:
        raise ValueError(f"env={env_id}: importing {module} raised {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(folder)
    return name


def check_env_kwargs(env_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return keyword arguments of an environment, none for None; raise ``ValueError`` if one is reserved or invalid."""
    options = dict(env_kwargs or {})
    if reserved := sorted(_RESERVED_KWARGS & options.keys()):
        raise ValueError(f"env_kwargs.{reserved[0]} is not an option of an environment: remove it")
    if options.get("max_episode_steps") is not None:
        check_constraints(options, {"max_episode_steps": COUNT})
    return options


def with_time_limit(spec: EnvSpec, env_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return an environment's keyword arguments with a time limit, unless the environment has one."""
    options, all_options = dict(env_kwargs), {**spec.kwargs, **env_kwargs}
    steps, frames = options.get("max_episode_steps"), all_options.get("max_num_frames_per_episode")
    if spec.vector_entry_point is not None:
        if frames and steps is not None:  # Atari's vector environment has no max_episode_steps
            del options["max_episode_steps"]
            options["max_num_frames_per_episode"] = min(frames, steps * _frames_per_step(all_options))
    elif not frames and steps is None and spec.max_episode_steps is None:
        options["max_episode_steps"] = MAX_EPISODE_STEPS
    return options


def max_episode_steps(spec: EnvSpec | None) -> int:
    """Return the registered or requested time limit in steps; ``MAX_EPISODE_STEPS`` if there is none."""
    return _registered_limit(spec) or MAX_EPISODE_STEPS


def expected_episode_length(spec: EnvSpec | None) -> int | None:
    """Return the registered or requested time limit in steps; None if it does not predict the length of episodes."""
    # MAX_EPISODE_STEPS and the frame limit of Atari's games only stop endless episodes.
    limit = _registered_limit(spec)
    guard = None if spec is None else math.ceil(_ATARI_MAX_FRAMES / _frames_per_step(spec.kwargs))
    return None if limit in (MAX_EPISODE_STEPS, guard) else limit


def _registered_limit(spec: EnvSpec | None) -> int | None:
    if spec is None:
        return None
    limit: int | None = spec.kwargs.get("max_episode_steps", spec.max_episode_steps)
    frames = spec.kwargs.get("max_num_frames_per_episode")
    return math.ceil(frames / _frames_per_step(spec.kwargs)) if limit is None and frames else limit


def _frames_per_step(env_kwargs: Mapping[str, Any]) -> int:
    return int(np.min(env_kwargs.get("frameskip", 4)))
