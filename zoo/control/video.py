import os
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.error import DependencyNotInstalled
from gymnasium.vector import AutoresetMode

from zoo.control.envs.vector_env import Environments, make_environments
from zoo.control.policy_gradient.policies import Policy
from zoo.control.q_learning.q_functions import QTable
from zoo.plotting import GifWriter
from zoo.plotting.saving import check_path

FPS = 10  # where an environment does not say


def record_episode(policy: Policy, name: str, seed: int, path: str | Path, **options: Any) -> float:
    """Film one episode of the greedy policy as a GIF, without a screen.

    Args:
        policy: a trained one.
        name: of the environment it was trained in, an id of Gymnasium's registry.
        seed: of the environment; with the same one the film is the same.
        path: ends in ``.gif``; a file already there is replaced.
        options: of the environment.

    Returns:
        The episode's undiscounted return.

    Raises:
        ValueError: there is no such environment, it cannot be drawn, or a package for that is missing; or the path does
            not end in ``.gif``.
        FileNotFoundError: the folder of ``path`` does not exist.
        EnvironmentFailure: the environment raised an error.
    """
    check_path(path, ".gif")
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame's: nothing is shown on a screen
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    check_drawable(name, **options)
    numbered = isinstance(getattr(policy, "q", None), QTable)
    with closing(make_environments(name, 1, numbered, **{**options, "render_mode": "rgb_array"})) as vector:
        film = GifWriter(vector.metadata.get("render_fps") or FPS)
        total = play(policy, Environments(vector), seed, film)
    film.save(path)
    return total


def check_drawable(name: str, **options: Any) -> None:
    """Refuse an environment that gives no pictures.

    Raises:
        ValueError: it does not, or there is no such environment.
    """
    with closing(make_environments(name, 1, **options)) as vector:
        modes = list(vector.metadata.get("render_modes") or [])
    if "rgb_array" not in modes:
        raise ValueError(f"{name} cannot be filmed: it has no render mode rgb_array, only {modes}")


@torch.inference_mode()
def play(policy: Policy, environments: Environments, seed: int, film: GifWriter) -> float:
    """Play one episode greedily, and film each state; gives its return."""
    device = next(policy.parameters()).device
    generator = torch.Generator(device)  # the global random state is left alone
    environments.reset(seed)
    film.add(picture(environments))
    total, over = 0.0, False
    while not over:
        noise = torch.zeros_like(policy.noise(1, generator=generator))
        step = environments.step(policy.act(torch.from_numpy(environments.observation).to(device), noise).cpu())
        total, over = total + float(step.reward[0]), bool(step.ended[0])
        if not over or environments.mode is AutoresetMode.NEXT_STEP:  # others show the next episode already
            film.add(picture(environments))
    return total


def picture(environments: Environments) -> np.ndarray:
    """Draw the first environment.

    Raises:
        ValueError: a package that is needed for that is not installed.
    """
    try:
        pictures: Any = environments.vector.render()
    except (DependencyNotInstalled, ImportError) as error:
        raise ValueError(f"rendering {environments.name} needs pygame: pip install -e '.[games]' ({error})") from error
    except NameError as error:  # MinAtar does without seaborn until it draws
        raise ValueError(f"rendering {environments.name} needs seaborn: pip install -e '.[games]' ({error})") from error
    return np.asarray(pictures[0])
