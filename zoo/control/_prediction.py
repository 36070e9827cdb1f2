from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Dict, OneOf, Space, Tuple

from zoo.control.envs._spaces import element_index, space_from_dict, space_to_dict, to_array, to_env_actions


def spaces_to_dict(observation: Space, action: Space) -> dict[str, Any]:
    """Return an environment's spaces as plain data, for ``PredictMixin``."""
    return {"observation": space_to_dict(observation), "action": space_to_dict(action)}


class PredictMixin:
    """Adds Stable-Baselines3's ``predict`` to a module with a ``policy``.

    The hyperparameter ``spaces`` describes the environment (see ``spaces_to_dict``); None if observations and actions
    are those of the policy itself.
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
        """Return the action for an observation, or one for each of a batch.

        The signature is that of Stable-Baselines3, whose evaluation code runs unchanged.

        Args:
            observation: observation of the environment, or a batch: arrays with an additional leading dimension.
            state: not used; policies here are not recurrent.
            episode_start: not used.
            deterministic: return the most likely action, or the one of the highest value, instead of a sample.

        Returns:
            The action or batch of actions in the environment's action space, and None in place of a state. A single
            discrete action is a NumPy scalar: some environments cannot index with a zero-dimensional array.

        Raises:
            ValueError: the observation does not have the environment's shape, or is not finite.

        Example:
            >>> from zoo.control import PolicyGradient
            >>> action, _ = PolicyGradient([4], 2).predict(np.zeros(4), deterministic=True)
            >>> action.shape
            ()
        """
        batch, single = self._to_batch(observation)
        if batch.dtype.kind == "f" and not np.isfinite(batch).all():
            raise ValueError("the observation is not finite")
        noise = self.policy.noise(len(batch))
        if deterministic:
            noise = torch.zeros_like(noise)
        device = next(self.policy.parameters()).device
        actions = self.policy.act(torch.from_numpy(batch).to(device), noise).cpu().numpy()
        if (spaces := self.hparams["spaces"]) is not None:
            actions = to_env_actions(space_from_dict(spaces["action"]), actions)
        return (actions[0] if single else actions), None

    def _to_batch(self, observation: Any) -> tuple[np.ndarray, bool]:
        """Return a batch of observations for the policy, and whether there was only one."""
        tabular = self.policy.tabular
        convert = element_index if tabular else to_array
        if (spaces := self.hparams["spaces"]) is not None:
            space = space_from_dict(spaces["observation"])
            if isinstance(space, Dict | OneOf | Tuple):
                single = not _is_batch(space, observation)
                elements = [observation] if single else _unbatch(space, observation)
                return np.stack([convert(space, element) for element in elements]), single
            shape = tuple(space.shape or ())
        else:
            space = None
            shape = () if tabular else tuple(self.hparams.get("observation_shape", self.hparams.get("observation")))
        array = np.asarray(observation)
        single = array.shape == shape
        if not single and array.shape[1:] != shape:
            raise ValueError(
                f"an observation of shape {array.shape} has neither the environment's shape {shape}, nor that of a "
                "batch of such"
            )
        batch = array[None] if single else array
        if space is not None and tabular:
            batch = np.array([element_index(space, element) for element in batch], np.int64)
        elif space is not None and not isinstance(space, Box):
            batch = np.stack([to_array(space, element) for element in batch]) if len(batch) else batch
        return np.array(batch), single


def _is_batch(space: Space, observation: Any) -> bool:
    """Return whether the first array of a composite observation has an additional leading dimension."""
    while isinstance(space, Dict | OneOf | Tuple):
        if isinstance(space, OneOf):  # an observation is the index of a space and an element of it
            return not isinstance(observation[0], int | np.integer)
        key: Any = next(iter(space.spaces)) if isinstance(space, Dict) else 0
        space, observation = space.spaces[key], observation[key]
    return np.ndim(observation) > len(space.shape or ())


def _unbatch(space: Space, observation: Any) -> list[Any]:
    if isinstance(space, Dict):
        parts = {key: _unbatch(part, observation[key]) for key, part in space.spaces.items()}
        return [dict(zip(parts, element, strict=True)) for element in zip(*parts.values(), strict=True)]
    if isinstance(space, Tuple):
        pairs = zip(space.spaces, observation, strict=True)
        return list(zip(*(_unbatch(part, value) for part, value in pairs), strict=True))
    if isinstance(space, OneOf):
        return list(observation)
    return list(np.asarray(observation))
