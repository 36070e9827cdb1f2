import os
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.error import DependencyNotInstalled
from gymnasium.vector import AutoresetMode

from zoo.control.envs.factory import make_vector_env
from zoo.control.envs.vector_env import VectorEnvAdapter
from zoo.control.policy import Policy
from zoo.plotting import GifWriter
from zoo.plotting._saving import check_path

_DEFAULT_FPS = 10


def record_episode(policy: Policy, env_id: str, seed: int, path: str | Path, **env_kwargs: Any) -> float:
    """Record one episode of the greedy policy as a GIF, without a display, and return its undiscounted return."""
    check_path(path, ".gif")
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame then opens no window
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    with closing(make_vector_env(env_id, 1, **env_kwargs)) as vector_env:
        modes = list(vector_env.metadata.get("render_modes") or [])
    if "rgb_array" not in modes:
        raise ValueError(f"{env_id} cannot be recorded: it has no render mode rgb_array, only {modes}")
    render_kwargs = {**env_kwargs, "render_mode": "rgb_array"}
    with closing(make_vector_env(env_id, 1, policy.tabular, **render_kwargs)) as vector_env:
        gif = GifWriter(vector_env.metadata.get("render_fps") or _DEFAULT_FPS)
        episode_return = _record(policy, VectorEnvAdapter(vector_env), seed, gif)
    gif.save(path)
    return episode_return


@torch.inference_mode()
def _record(policy: Policy, envs: VectorEnvAdapter, seed: int, gif: GifWriter) -> float:
    device = next(policy.parameters()).device
    generator = torch.Generator(device)  # the global random state is not changed
    envs.reset(seed)
    gif.add(_render(envs))
    total, done = 0.0, False
    while not done:
        noise = torch.zeros_like(policy.noise(1, generator=generator))
        step = envs.step(policy.act(torch.from_numpy(envs.observation).to(device), noise).cpu())
        total, done = total + float(step.reward[0]), bool(step.done[0])
        if not done or envs.autoreset_mode is AutoresetMode.NEXT_STEP:  # in other modes the next episode has begun
            gif.add(_render(envs))
    return total


def _render(envs: VectorEnvAdapter) -> np.ndarray:
    try:
        frames: Any = envs.vector_env.render()
    except (DependencyNotInstalled, ImportError) as error:
        raise ValueError(f"rendering {envs.name} needs pygame: pip install -e '.[games]' ({error})") from error
    except NameError as error:  # MinAtar imports seaborn only if it is installed
        raise ValueError(f"rendering {envs.name} needs seaborn: pip install -e '.[games]' ({error})") from error
    return np.asarray(frames[0])
