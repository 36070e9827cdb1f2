import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import jaxtyping
import pytest
import torch
from plain_ram import PlainRAM
from torch import Tensor

from zoo.attention import RecurrentAttention
from zoo.training import run_environment, write_json

FIGURES = pytest.StashKey[dict[str, float]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let figures be kept."""
    parser.addoption("--record", type=Path, help="file to keep the measured ratios in")


def pytest_configure(config: pytest.Config) -> None:
    """Begin without figures."""
    config.stash[FIGURES] = {}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Keep the figures, if that was asked for."""
    if (file := session.config.getoption("--record")) is not None:
        command = " ".join(["pytest", *sys.argv[1:]])
        write_json(file, {"command": command, **run_environment(), "ratios": session.config.stash[FIGURES]})


@pytest.fixture
def measured(pytestconfig: pytest.Config) -> Callable[[str, float], None]:
    """Show a ratio, and keep it."""

    def note(what: str, ratio: float) -> None:
        print(f"\n{what}: {ratio:.3g}")
        pytestconfig.stash[FIGURES][what] = ratio

    return note


@pytest.fixture(autouse=True)
def without_type_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time the code, not the checks of its types that tests may have switched on."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """128 images of noise, and their classes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (128, 1, 28, 28), generator=generator, dtype=torch.uint8)
    return images, torch.randint(10, (128,), generator=generator)


@pytest.fixture
def model() -> RecurrentAttention:
    """RAM as in the paper's table, with six glimpses of 8×8, a hidden layer as in reimplementations, and no spiral."""
    torch.manual_seed(0)
    sizes = {"num_glimpses": 6, "patch_size": 8, "location_range": None, "location_hidden": 128}
    policy = {"reinforce_core": True, "spiral_radius": 0.0, "final_location_std": None}
    model = RecurrentAttention((1, 28, 28), tuple("0123456789"), **sizes, **policy)
    model.trainer = SimpleNamespace(global_step=0, estimated_stepping_batches=1000)
    return model


@pytest.fixture
def plain(model: RecurrentAttention) -> PlainRAM:
    """The same model, with the same weights, as it is commonly written."""
    std, policy_weight = model.hparams["location_std"], model.hparams["policy_weight"]
    plain = PlainRAM(channels=1, patch_size=8, num_classes=10, std=std, policy_weight=policy_weight)
    plain.copy_weights(model)
    return plain
