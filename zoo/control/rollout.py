from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from zoo.control._acting import NOISE_CHUNK_SIZE, make_act_fn
from zoo.control.envs._wrappers import EnvError
from zoo.control.envs.vector_env import VectorEnvAdapter
from zoo.control.policy import Policy


class Rollout(NamedTuple):
    """Steps of a policy in several environments; the first two dimensions of each field are (time, envs).

    Example:
        >>> Rollout._fields
        ('observation', 'action', 'reward', 'next_observation', 'terminated', 'done', 'mask', 'step_count')
    """

    observation: Shaped[Tensor, "time envs ..."]
    """``s_t``."""
    action: Shaped[Tensor, "time envs ..."]
    """``a_t``, before the environment clips or rounds it."""
    reward: Float[Tensor, "time envs"]
    """``r_t``."""
    next_observation: Shaped[Tensor, "time envs ..."]
    """``s_{t+1}``, before any reset."""
    terminated: Bool[Tensor, "time envs"]
    done: Bool[Tensor, "time envs"]
    """Terminated or truncated."""
    mask: Bool[Tensor, "time envs"]
    """False where the environment ignored the action, or the episode was over before."""
    step_count: Int[Tensor, "time envs"]
    """``t``, counted from the first step of the episode."""


def collect_rollout(
    envs: VectorEnvAdapter,
    policy: Policy,
    n_steps: int,
    step_count: Int[np.ndarray, " envs"],
    complete_episodes: bool = False,
    env_steps: int = 0,
) -> Rollout:
    """Return a rollout of a policy in environments that continue from their current state.

    Args:
        envs: environments.
        policy: policy that acts; its noise comes from the global random state.
        n_steps: steps of each environment; the maximum with ``complete_episodes``.
        step_count: steps of the current episodes so far; updated in place.
        complete_episodes: collect one episode of each environment, and mask the steps after it.
        env_steps: environment steps taken before, for error messages.

    Raises:
        EnvError: an environment raised an error, or returned values that are not finite.

    Example:
        >>> from zoo.control import make_policy, make_vector_env
        >>> envs = VectorEnvAdapter(make_vector_env("CartPole-v1", num_envs=2))
        >>> envs.reset(seed=0)
        >>> rollout = collect_rollout(envs, make_policy((4,), 2, hidden=(8,)), 5, step_count=np.zeros(2, np.int64))
        >>> rollout.observation.shape, rollout.reward.shape
        (torch.Size([5, 2, 4]), torch.Size([5, 2]))
    """
    shape = n_steps, len(envs)
    observation = np.empty((*shape, *envs.observation.shape[1:]), envs.observation.dtype)
    next_observation, reward = np.empty_like(observation), np.empty(shape, np.float32)
    terminated, done, mask = (np.empty(shape, bool) for _ in range(3))
    step_counts, finished, actions = np.empty(shape, np.int64), np.zeros(shape[1], bool), []
    with torch.inference_mode():
        act = make_act_fn(policy)
        for t in range(n_steps):
            if t % NOISE_CHUNK_SIZE == 0:
                noise = policy.noise(min(NOISE_CHUNK_SIZE, n_steps - t), shape[1])
            observation[t], step_counts[t] = envs.observation, step_count
            action = act(observation[t], noise[t % NOISE_CHUNK_SIZE])
            next_observation[t], reward[t], terminated[t], done[t], mask[t] = envs.step(action)
            actions.append(action)
            step_count += mask[t]
            step_count[done[t]] = 0
            if complete_episodes:
                mask[t] &= ~finished
                finished |= done[t]
                if finished.all():
                    break
    parts = (reward, next_observation, terminated, done, mask, step_counts)
    rollout = Rollout(
        torch.from_numpy(observation[: t + 1]),
        torch.stack(actions),
        *(torch.from_numpy(part[: t + 1]) for part in parts),
    )
    _check_finite(rollout, envs.name, env_steps)
    return rollout


def _check_finite(rollout: Rollout, name: str, env_steps: int) -> None:
    parts = ("observation", rollout.observation), ("reward", rollout.reward), ("observation", rollout.next_observation)
    found = [
        ((~torch.isfinite(values)).nonzero()[0, :2].tolist(), what)
        for what, values in parts
        if values.is_floating_point() and not torch.isfinite(values).all()
    ]
    if found:
        (time, env), what = min(found, key=lambda place: place[0][0])  # the earliest; on a tie, the first in parts
        raise EnvError(
            f"{name} returned {what}s that are not finite, first in environment {env} at step {time} of the rollout "
            f"that began after {env_steps} environment steps"
        )
