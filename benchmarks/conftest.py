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

RATIOS = pytest.StashKey[dict[str, float]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option ``--record``."""
    parser.addoption("--record", type=Path, help="JSON file for the measured ratios")


def pytest_configure(config: pytest.Config) -> None:
    """Start without ratios."""
    config.stash[RATIOS] = {}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the ratios to the file of ``--record``."""
    if (file := session.config.getoption("--record")) is not None:
        command = " ".join(["pytest", *sys.argv[1:]])
        write_json(file, {"command": command, **run_environment(), "ratios": session.config.stash[RATIOS]})


@pytest.fixture
def measured(pytestconfig: pytest.Config) -> Callable[[str, float], None]:
    """Print a ratio and store it."""

    def add(name: str, ratio: float) -> None:
        print(f"\n{name}: {ratio:.3g}")
        pytestconfig.stash[RATIOS][name] = ratio

    return add


@pytest.fixture(autouse=True)
def without_type_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch off runtime type checks, which tests may have enabled."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """128 images of noise with labels."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (128, 1, 28, 28), generator=generator, dtype=torch.uint8)
    return images, torch.randint(10, (128,), generator=generator)


@pytest.fixture
def model() -> RecurrentAttention:
    """RAM with six glimpses of 8×8 as in the paper, a location network with a hidden layer, and no spiral."""
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
