from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Dict, OneOf, Space, Tuple

from zoo.control.envs.spaces import environment_actions, flat, from_plain, index, to_plain
from zoo.control.q_learning.q_functions import QTable


def described_spaces(observation: Space, action: Space) -> dict[str, Any]:
    """Describe an environment's spaces as plain data, for ``Predictor``."""
    return {"observation": to_plain(observation), "action": to_plain(action)}


class Predictor:
    """Adds ``predict`` of Stable-Baselines3 to a module with a ``policy``.

    Among its hyperparameters are ``spaces`` (see ``described_spaces``), or None where observations and actions are the
    policy's own.
    """

    policy: Any
    hparams: Any

    @torch.no_grad()
    def predict(
        self,
        observation: Any,
        state: None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray | np.generic, None]:
        """Choose an action for an observation, or for each of a batch.

        The signature is that of Stable-Baselines3, whose code for acting runs unchanged.

        Args:
            observation: as the environment gives it, or a batch of such: arrays with one more dimension in front.
            state: not used; policies here keep none.
            episode_start: not used.
            deterministic: choose the likeliest action, or the one of the highest value; else sample as in training.

        Returns:
            The action, or the batch of actions, as the environment takes it; and None in the place of a state. A single
            choice is a scalar of numpy, not its array without axes, which some environments cannot look up.

        Raises:
            ValueError: the observation is not of the environment's, or not finite.

        Example:
            >>> from zoo.control import PolicyGradient
            >>> action, _ = PolicyGradient([4], 2).predict(np.zeros(4), deterministic=True)
            >>> action.shape
            ()
        """
        batch, single = self._read(observation)
        if batch.dtype.kind == "f" and not np.isfinite(batch).all():
            raise ValueError("the observation holds numbers that are not finite")
        noise = self.policy.noise(len(batch))
        if deterministic:
            noise = torch.zeros_like(noise)
        device = next(self.policy.parameters()).device
        actions = self.policy.act(torch.from_numpy(batch).to(device), noise).cpu().numpy()
        if (spaces := self.hparams["spaces"]) is not None:
            actions = environment_actions(from_plain(spaces["action"]), actions)
        return (actions[0] if single else actions), None

    def _read(self, observation: Any) -> tuple[np.ndarray, bool]:
        """Batch of observations as the policy reads them, and whether it was a single one."""
        tabular = isinstance(getattr(self.policy, "q", None), QTable)
        if (spaces := self.hparams["spaces"]) is not None:
            space = from_plain(spaces["observation"])
            if isinstance(space, Dict | OneOf | Tuple):
                single = not is_batch(space, observation)
                elements = [observation] if single else unbatch(space, observation)
                return np.stack([index(space, e) if tabular else flat(space, e) for e in elements]), single
            shape = tuple(space.shape or ())
        else:
            space = None
            known = self.hparams.get("observation_shape", self.hparams.get("observation"))
            shape = () if tabular else tuple(known)
        array = np.asarray(observation)
        single = array.shape == shape
        if not single and array.shape[1:] != shape:
            raise ValueError(
                f"an observation of shape {array.shape} is neither one of the environment's, of shape {shape}, nor a "
                "batch of them"
            )
        batch = array[None] if single else array
        if space is not None and tabular:
            batch = np.array([index(space, element) for element in batch], np.int64)
        elif space is not None and not isinstance(space, Box):
            batch = np.stack([flat(space, element) for element in batch]) if len(batch) else batch
        return np.array(batch), single


def is_batch(space: Space, observation: Any) -> bool:
    """Whether an observation of several parts has one more dimension in front, by the first of its arrays."""
    while isinstance(space, Dict | OneOf | Tuple):
        if isinstance(space, OneOf):  # an observation is which of the spaces it is of, and an element of that
            return not isinstance(observation[0], int | np.integer)
        key: Any = next(iter(space.spaces)) if isinstance(space, Dict) else 0
        space, observation = space.spaces[key], observation[key]
    return np.ndim(observation) > len(space.shape or ())


def unbatch(space: Space, observation: Any) -> list[Any]:
    """List the elements of a batch."""
    if isinstance(space, OneOf):
        return list(observation)
    if isinstance(space, Dict):
        parts: Mapping[str, Any] = {key: unbatch(part, observation[key]) for key, part in space.spaces.items()}
        return [dict(zip(parts, element, strict=True)) for element in zip(*parts.values(), strict=True)]
    if isinstance(space, Tuple):
        pairs = zip(space.spaces, observation, strict=True)
        return list(zip(*(unbatch(part, value) for part, value in pairs), strict=True))
    return list(np.asarray(observation))
