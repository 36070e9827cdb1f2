from typing import ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.error import DependencyNotInstalled
from gymnasium.spaces import Box, Discrete
from PIL import Image
from torch import nn

from zoo.control._video import record_episode
from zoo.control.policy_gradient.policies import CategoricalPolicy
from zoo.control.q_learning.exploration import ExploringPolicy
from zoo.control.q_learning.q_functions import QTable

pytestmark = pytest.mark.usefixtures("without_type_checks")


class Strip(gymnasium.Env):
    """Strip of five cells; each step right has its number as reward. Rendering needs no package and is random."""

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 5}
    action_space = Discrete(2)

    def __init__(self, render_mode=None, states=None, missing=None):
        self.render_mode, self.missing = render_mode, missing
        self.observation_space = Box(0, 5, (1,)) if states is None else Discrete(states)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.cell = 0
        return self.observation, {}

    @property
    def observation(self):
        return self.cell if isinstance(self.observation_space, Discrete) else np.array([self.cell], np.float32)

    def step(self, action):
        self.cell += int(action)
        return self.observation, float(action * self.cell), self.cell == 5, False, {}

    def render(self):
        if self.missing is not None:
            raise self.missing
        image = np.zeros((4, 6, 3), np.uint8)
        image[:, self.cell] = 255
        image[0, :, 0] = self.np_random.integers(256, size=6)  # random pixels
        return image


@pytest.fixture(autouse=True)
def strips():
    """Register variants of the strip during a test."""
    kinds = {
        "Strip-v0": {},
        "StripOfStates-v0": {"states": 6},
        "StripNeedsPygame-v0": {"missing": DependencyNotInstalled("pygame is not installed")},
        "StripNeedsSeaborn-v0": {"missing": NameError("name 'sns' is not defined")},
    }
    for name, options in kinds.items():
        gymnasium.register(name, Strip, max_episode_steps=8, kwargs=options)
    yield
    for name in kinds:
        del gymnasium.registry[name]


def walker(right):
    """Return a policy with a small preference for one direction."""
    net = nn.Linear(1, 2)
    net.weight.data.zero_()
    net.bias.data[:] = torch.tensor([0.0, 0.1 if right else -0.1])
    return CategoricalPolicy(net, num_actions=2)


def frames(path):
    with Image.open(path) as gif:
        for number in range(gif.n_frames):
            gif.seek(number)
            yield np.asarray(gif.convert("RGB"))


def test_greedy_episode_is_recorded_from_first_to_last_state(tmp_path):
    assert record_episode(walker(right=True), "Strip-v0", 1, tmp_path / "strip.gif") == 1 + 2 + 3 + 4 + 5
    shown = list(frames(tmp_path / "strip.gif"))
    assert len(shown) == 6
    bright = [frame[-1].mean(-1).argmax() * 6 // frame.shape[1] for frame in shown]
    assert bright == [0, 1, 2, 3, 4, 5]


def test_recording_ends_at_the_time_limit(tmp_path):
    assert record_episode(walker(right=False), "Strip-v0", 1, tmp_path / "strip.gif") == 0
    assert len(list(frames(tmp_path / "strip.gif"))) == 9


def test_tabular_policy_is_recorded(tmp_path):
    policy = ExploringPolicy(QTable(6, 2), 2, "epsilon_greedy", parameter=0.5)
    policy.q.values.data[:3, 1] = 1.0  # right in the first three states, left from then on
    policy.q.values.data[3:, 0] = 1.0
    assert record_episode(policy, "StripOfStates-v0", 1, tmp_path / "strip.gif") == 1 + 2 + 3


def test_recording_is_reproducible_and_does_not_change_the_global_random_state(tmp_path):
    policy, before = walker(right=True), torch.get_rng_state()
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        record_episode(policy, "Strip-v0", seed, tmp_path / f"{name}.gif")
    one, same, other = ((tmp_path / f"{name}.gif").read_bytes() for name in ("one", "same", "other"))
    assert one == same != other
    assert torch.equal(before, torch.get_rng_state())


def test_cart_pole_is_recorded_without_a_display(tmp_path, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    net = nn.Linear(4, 2)
    total = record_episode(CategoricalPolicy(net, 2), "CartPole-v1", 1, tmp_path / "cart.gif")
    assert total >= 8
    assert len(list(frames(tmp_path / "cart.gif"))) >= 4


@pytest.mark.parametrize(
    ("name", "file", "sentence"),
    [
        ("StripNeedsPygame-v0", "a.gif", "^rendering StripNeedsPygame-v0 needs pygame: pip install -e '.\\[games\\]'"),
        ("StripNeedsSeaborn-v0", "a.gif", "^rendering StripNeedsSeaborn-v0 needs seaborn: pip install -e"),
        ("Stripe-v0", "a.gif", "no environment 'Stripe-v0' is registered in Gymnasium; did you mean"),
        ("Strip-v0", "a.mp4", r"^path must end in \.gif"),
    ],
)
def test_recording_that_fails_raises_and_leaves_no_file(name, file, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        record_episode(walker(right=True), name, 1, tmp_path / file)
    assert not list(tmp_path.iterdir())


def test_environment_without_rgb_array_raises(tmp_path, monkeypatch):
    monkeypatch.setitem(Strip.metadata, "render_modes", ["ansi"])
    with pytest.raises(
        ValueError, match=r"^Strip-v0 cannot be recorded: it has no render mode rgb_array, only \['ansi'\]"
    ):
        record_episode(walker(right=True), "Strip-v0", 1, tmp_path / "a.gif")
