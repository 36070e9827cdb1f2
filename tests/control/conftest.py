import sys
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import pytorch_lightning as pl
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from zoo.control.envs.vector_env import Environments

Ending = tuple[int, str]


class Diary(gymnasium.Env):
    """Shows the number of the episode and of the step; its episodes end as was written beforehand.

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
def diaries() -> Callable[..., Environments]:
    """Environments whose episodes are known: ``diaries(mode, [(3, "terminated")], [(2, "truncated"), ...])``."""

    def make(mode: AutoresetMode, *plans: list[Ending]) -> Environments:
        return Environments(SyncVectorEnv([lambda plan=plan: Diary(*plan) for plan in plans], autoreset_mode=mode))

    return make


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
    """Name of a user's own environment, in a module of the current folder: seven cells, both choices must say go."""
    (tmp_path / "corridors.py").write_text(CORRIDOR)
    monkeypatch.chdir(tmp_path)
    yield "corridors:Corridor-v0"
    gymnasium.registry.pop("Corridor-v0", None)
    sys.modules.pop("corridors", None)
