import sys
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import nn

from zoo.control.envs.vector_env import VectorEnvAdapter
from zoo.control.policy_gradient.policies import CategoricalPolicy

Ending = tuple[int, str]


class ScriptedEnv(gymnasium.Env):
    """Environment with scripted ends of episodes, whose observation is the number of episode and step.

    The reward is the action, and 10 for each step of the episode so far.
    """

    observation_space = Box(0, np.inf, (2,))
    action_space = Discrete(2)

    def __init__(self, *endings: Ending):
        self.endings, self.episode, self.seeds = endings, -1, []

    def reset(self, *, seed: int | None = None, options: Any = None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.episode, self.time = self.episode + 1, 0
        return self.observation, {}

    @property
    def observation(self) -> np.ndarray:
        return np.array([self.episode, self.time], np.float32)

    def step(self, action: Any):
        length, how = self.endings[self.episode % len(self.endings)]
        self.time += 1
        over = self.time == length
        ends = [over and how in (word, "both") for word in ("terminated", "truncated")]
        return self.observation, float(action + 10 * self.time), *ends, {}


@pytest.fixture
def scripted() -> Callable[..., VectorEnvAdapter]:
    """Return environments with scripted episodes: ``scripted(mode, [(3, "terminated")], [(2, "truncated"), ...])``."""

    def make(mode: AutoresetMode, *plans: list[Ending]) -> VectorEnvAdapter:
        return VectorEnvAdapter(
            SyncVectorEnv([lambda plan=plan: ScriptedEnv(*plan) for plan in plans], autoreset_mode=mode)
        )

    return make


class Alternating(nn.Module):
    """Network that selects action 1 at even steps of an episode and 0 at odd ones."""

    def __init__(self):
        super().__init__()
        self.sure = nn.Parameter(torch.tensor(1e6))

    def forward(self, observation):
        even = 1 - observation[..., 1] % 2
        return self.sure * torch.stack([1 - even, even], -1)


@pytest.fixture
def alternating():
    return CategoricalPolicy(Alternating(), num_actions=2)


@pytest.fixture
def learn():
    """Train a module on rollouts: ``learn(module, rollouts, callbacks...)``."""

    def fit(module, rollouts, *callbacks, evaluator=None, ckpt_path=None, epochs=1):
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        quiet |= {"enable_checkpointing": False, "accelerator": "cpu", "num_sanity_val_steps": 0}
        trainer = pl.Trainer(max_epochs=epochs, callbacks=list(callbacks), **quiet)
        trainer.fit(module, rollouts, evaluator, ckpt_path=ckpt_path, weights_only=True)
        return trainer

    return fit


CORRIDOR = """
import gymnasium
from gymnasium.spaces import Discrete, MultiDiscrete, Tuple


class Corridor(gymnasium.Env):
    observation_space = Tuple([Discrete(2), Discrete(4)])
    action_space = MultiDiscrete([2, 2])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.cell = 0
        return divmod(int(self.cell), 4), {}

    def step(self, action):
        self.cell += action.sum() == 2
        return divmod(int(self.cell), 4), float(self.cell == 6) - 0.01, self.cell == 6, False, {}


gymnasium.register("Corridor-v0", Corridor, max_episode_steps=50)
"""


@pytest.fixture
def corridor(tmp_path, monkeypatch) -> Iterator[str]:
    """Id of a custom environment in a module of the current folder: seven cells; two binary actions, both 1 to move."""
    (tmp_path / "corridors.py").write_text(CORRIDOR)
    monkeypatch.chdir(tmp_path)
    yield "corridors:Corridor-v0"
    gymnasium.registry.pop("Corridor-v0", None)
    sys.modules.pop("corridors", None)
