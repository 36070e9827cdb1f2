"""Time limits of registered environments: Gymnasium's ``max_episode_steps``, and the frame counter of Atari's games."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.envs.registration import EnvSpec

MAX_EPISODE_STEPS = 10_000  # of environments that register no limit
_ATARI_MAX_FRAMES = 108_000  # as ale-py registers its games: a guard, far beyond most episodes


def with_time_limit(spec: EnvSpec, env_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return keyword arguments of an environment under which each episode ends.

    ``max_episode_steps`` becomes ``max_num_frames_per_episode`` for Atari, whose vector environment has no other limit,
    and ``MAX_EPISODE_STEPS`` where nothing is registered.
    """
    steps = env_kwargs.get("max_episode_steps")
    if frames := _max_frames(spec, env_kwargs):
        if steps is None or spec.vector_entry_point is None:
            return dict(env_kwargs)
        others = {key: value for key, value in env_kwargs.items() if key != "max_episode_steps"}
        return {**others, "max_num_frames_per_episode": min(frames, steps * _frames_per_step(spec, env_kwargs))}
    if steps is None and spec.vector_entry_point is None and spec.max_episode_steps is None:
        return {**env_kwargs, "max_episode_steps": MAX_EPISODE_STEPS}
    return dict(env_kwargs)


def longest_episode(spec: EnvSpec | None) -> int:
    """Return the number of steps after which an episode is truncated at the latest."""
    return _registered_limit(spec) or MAX_EPISODE_STEPS


def time_limit(spec: EnvSpec | None) -> int | None:
    """Return the registered or requested time limit in steps; None if there is none but a guard.

    A guard against endless episodes (ours, and the frame limit of Atari's games) does not predict their length.
    """
    limit = _registered_limit(spec)
    guard = None if spec is None else math.ceil(_ATARI_MAX_FRAMES / _frames_per_step(spec, {}))
    return None if limit in (MAX_EPISODE_STEPS, guard) else limit


def _registered_limit(spec: EnvSpec | None) -> int | None:
    if spec is None:
        return None
    limit: int | None = spec.kwargs.get("max_episode_steps", spec.max_episode_steps)
    if limit is None and (frames := _max_frames(spec, {})):
        return math.ceil(frames / _frames_per_step(spec, {}))
    return limit


def _max_frames(spec: EnvSpec, env_kwargs: Mapping[str, Any]) -> int | None:
    found: int | None = {**spec.kwargs, **env_kwargs}.get("max_num_frames_per_episode")
    return found


def _frames_per_step(spec: EnvSpec, env_kwargs: Mapping[str, Any]) -> int:
    return int(np.min({**spec.kwargs, **env_kwargs}.get("frameskip", 4)))
