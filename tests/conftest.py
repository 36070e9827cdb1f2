"""A set of pictures and a model small enough to train in a second, and the scripts run in this process."""

import copy
import json
import math
import os
import runpy
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jaxtyping
import numpy as np
import pyro
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from pyro import poutine
from torch import Tensor
from torch.distributions import Distribution

if "PYTEST_XDIST_WORKER" in os.environ:  # the processes share the cores, and so do their children
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"

ROOT = Path(__file__).parents[1]
PASS = ["model.num_envs=4", "model.eval_freq=64", "model.stop_on_reward_threshold=false"]
SMALL = {
    "sbn": ["model.layers=[3,2]", "model.hidden=[4]"],
    "bbvi": ["model.steps_per_epoch=4", "model.num_eval_samples=100"],
    "ram": ["model.num_glimpses=3", "model.patch_size=4", "model.location_hidden=8", "model.num_samples=2"],
    "captioning": [
        *("data.num_train=64", "data.num_validation=16", "data.num_test=16"),
        *("model.hidden_size=8", "model.embedding_size=8", "model.value_size=8", "model.query_size=4"),
        *("model.max_length=6", "model.beam_size=2"),
    ],
    "policy_gradient": [*PASS, "model.n_steps=4", "model.n_eval_episodes=2", "model.hidden=[8]"],
    "q_learning": ["env=CliffWalking-v1", "model.train_freq=4", *PASS],
    "dqn": [
        *PASS,
        "model.train_freq=4",
        "model.n_eval_episodes=2",
        "model.gradient_steps=1",
        "model.n_steps=2",
        "model.learning_starts=0",
        "model.hidden=[8]",
    ],
}
SHORT = ["trainer.max_epochs=2", "trainer.batch_size=16", "trainer.accelerator=cpu", "trainer.devices=1"]


class At(pl.Callback):
    """Does something at the beginning of a step, counted from 1."""

    def __init__(self, step: int, act: Callable[[pl.LightningModule], object]):
        self.step, self.act = step, act

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step + 1 == self.step:
            self.act(pl_module)


@pytest.fixture
def at() -> type[At]:
    """Make a callback: ``at(step, act)``."""
    return At


@pytest.fixture
def without_type_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls reach the code itself at once, as they do outside the tests: for thousands of small ones."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(autouse=True)
def same_validation() -> Iterator[None]:
    """Leave the validation of distributions as it was: torch.compile switches it off for all that follows."""
    before = Distribution._validate_args
    yield
    Distribution.set_default_validate_args(before)


@pytest.fixture(scope="session")
def write_idx() -> Callable[[Path, Tensor], bytes]:
    """Write an IDX file that holds numbers of uint8, and give its content."""

    def write(path: Path, values: Tensor) -> bytes:
        sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
        content = bytes([0, 0, 8, values.ndim]) + sizes + values.numpy().tobytes()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return content

    return write


@pytest.fixture(scope="session")
def squares(tmp_path_factory, write_idx) -> Path:
    """Four IDX files: 64 pictures of 12 × 12 to train on, 24 to test; the corner of the bright square is the class."""
    folder = tmp_path_factory.mktemp("data") / "squares"
    generator = torch.Generator().manual_seed(0)
    for part, count in (("train", 64), ("t10k", 24)):
        labels = torch.arange(count, dtype=torch.uint8) % 4
        images = torch.randint(0, 60, (count, 12, 12), dtype=torch.uint8, generator=generator)
        for image, label in zip(images, labels.tolist(), strict=True):
            row, column = 6 * (label // 2), 6 * (label % 2)
            image[row : row + 6, column : column + 6] += 150
        write_idx(folder / f"{part}-images-idx3-ubyte", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte", labels)
    return folder


def write_flickr8k(root: Path) -> None:
    """Write a folder laid out as Flickr8k, with a gray photograph in each split."""
    from zoo.data.flickr8k import LISTS, TOKENS

    (root / "images").mkdir(parents=True)
    for split, file in LISTS.items():
        Image.new("RGB", (8, 6)).save(root / "images" / f"{split}.jpg")
        (root / file).write_text(f"{split}.jpg\n")
    (root / TOKENS).write_text("".join(f"{split}.jpg#{i}\tA dog .\n" for split in LISTS for i in range(5)))


@pytest.fixture(scope="session")
def zoo_data(tmp_path_factory) -> Path:
    """A folder of data as ``$ZOO_DATA`` is, with a few rows for each program."""
    from zoo.inference.programs import _gaussian_mixture as gaussian_mixture
    from zoo.inference.programs import _hmm as hmm
    from zoo.inference.programs._regression import KIDIQ_POSTERIOR

    folder, noise = tmp_path_factory.mktemp("zoo_data"), np.random.default_rng(0)
    x = noise.normal(size=(12, 2))
    y = x @ [1.0, -1.0] + 0.3 * noise.normal(size=12)
    data = {
        gaussian_mixture.POSTERIOR: ({"y": [-3.0, -2.5, 3.1, 2.2, -2.0]}, 5),
        hmm.POSTERIOR: ({"y": [3.1, 2.5, 9.0, 10.2, 9.5]}, 6),
        KIDIQ_POSTERIOR: ({"kid_score": [65, 98, 85, 83, 115], "mom_hs": [1, 1, 0, 1, 0]}, 3),
        "sblri-blr": ({"X": x.tolist(), "y": y.tolist()}, 3),
        "sblrc-blr": ({"X": x.tolist(), "y": y.tolist()}, 3),
    }
    for name, (content, quantities) in data.items():
        posterior = folder / "posteriordb" / name
        posterior.mkdir(parents=True)
        moments = {"names": [f"q[{i}]" for i in range(quantities)], "mcse_mean": [0.1] * quantities}
        (posterior / "data.json").write_text(json.dumps(content))
        (posterior / "mean.json").write_text(json.dumps({**moments, "mean_value": [0.0] * quantities}))
        (posterior / "mean_squared.json").write_text(json.dumps({**moments, "mean_squared_value": [1.0] * quantities}))
    write_labs(folder / "pbc" / "pbcseq.csv", noise)
    write_flickr8k(folder / "flickr8k")
    return folder


def write_labs(path: Path, noise: np.random.Generator) -> None:
    """Seventy patients with one to three visits."""
    from examples.patients.labs import PBC_LABS

    path.parent.mkdir()
    rows = [",".join(["id", "day", *PBC_LABS])]
    for patient in range(70):
        for visit in range(1 + patient % 3):
            labs = [math.exp(z) for z in noise.normal(size=len(PBC_LABS))]
            rows.append(",".join(map(str, [patient, 100 * visit, *labs])))
    path.write_text("\n".join(rows))


@pytest.fixture(scope="session")
def tiny(squares) -> Callable[..., list[str]]:
    """Overrides that make a model's run a matter of a second: ``tiny("ram", "seed=2")``; later ones win."""

    def overrides(model: str, *more: str) -> list[str]:
        data = ["data=idx", f"data.root={squares}"] if model in ("ram", "sbn") else []
        return [f"model={model}", *data, *SMALL[model], *SHORT, *more]

    return overrides


@pytest.fixture(scope="session")
def composed() -> Callable[[list[str]], dict[str, Any]]:
    """Compose a run's configuration as ``scripts/train.py`` does, resolved to plain data."""
    from zoo.cli._composition import compose_config  # late: the tests of the lower floors do without Hydra

    done: dict[tuple[str | None, ...], dict[str, Any]] = {}

    def config(overrides: list[str]) -> dict[str, Any]:
        key = (os.environ.get("ZOO_DATA"), *overrides)
        if key not in done:
            done[key] = compose_config(overrides)
        return copy.deepcopy(done[key])

    return config


@pytest.fixture(scope="session")
def finished(tiny, composed, tmp_path_factory) -> Callable[[str], Path]:
    """Folder of a finished run of a model, trained once for all tests: copy it before changing it."""
    folders: dict[str, Path] = {}

    def run(model: str) -> Path:
        from zoo.cli._commands import train

        if model not in folders:
            folder = tmp_path_factory.mktemp("finished") / model
            train(composed(tiny(model)), folder, f"python scripts/train.py model={model}")
            folders[model] = folder
        return folders[model]

    return run


@pytest.fixture
def no_pictures(monkeypatch) -> None:
    """Runs draw nothing, which takes them longer than all else and has tests of its own."""
    for name in ("_draw_glimpses", "_draw_misclassified"):
        monkeypatch.setattr(f"zoo.attention.ram.experiment.{name}", lambda *args: None)
    monkeypatch.setattr("zoo.attention.captioning.experiment._draw_captions", lambda *args: None)
    monkeypatch.setattr("zoo.control._experiment.draw_returns", lambda *args: None)
    monkeypatch.setattr("zoo.inference.sbn.experiment._save_images", lambda *args: None)
    for name in ("_save_elbo_figure", "_save_posterior_figure"):
        monkeypatch.setattr(f"zoo.inference.experiment.{name}", lambda *args: None)


class Answer(NamedTuple):
    """What a script left on the command line."""

    code: int
    out: str
    err: str


@pytest.fixture
def script(monkeypatch, capsys, tmp_path) -> Callable[..., Answer]:
    """Run a script of the project as a user would, in an empty folder: ``script("train.py", "model=ram")``.

    Others than those in ``scripts`` are named by their path.
    """
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: str) -> Answer:
        path = str(ROOT / (name if "/" in name else f"scripts/{name}"))
        monkeypatch.setattr(sys, "argv", [path, *arguments])
        capsys.readouterr()
        try:
            runpy.run_path(path, run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code
        return Answer(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def differences() -> Callable[[Any, Any], list[str]]:
    """Where two nests of mappings, sequences, tensors and numbers differ, bit for bit."""

    def compare(one: Any, other: Any, where: str = "") -> list[str]:
        if isinstance(one, Mapping) and isinstance(other, Mapping) and one.keys() == other.keys():
            return [found for key in one for found in compare(one[key], other[key], f"{where}/{key}")]
        if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
            pairs = enumerate(zip(one, other, strict=True))
            return [found for i, pair in pairs for found in compare(*pair, f"{where}/{i}")]
        if isinstance(one, Tensor) and isinstance(other, Tensor):
            return [] if one.dtype == other.dtype and torch.equal(one, other) else [where]
        return [] if type(one) is type(other) and one == other else [where]

    return compare


@pytest.fixture
def own_parameters() -> Iterator[None]:
    """Nothing of a test stays in Pyro's parameter store."""
    with pyro.get_param_store().scope():
        yield


@pytest.fixture
def double() -> Iterator[None]:
    """New tensors are of float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def joint() -> Callable[..., float]:
    """Log of the joint density of a model at values of its sites: ``joint(model, data, values)``."""

    def log_density(model, data, values):
        return poutine.trace(poutine.condition(model, values)).get_trace(*data).log_prob_sum().item()

    return log_density


@pytest.fixture
def tensors() -> Callable[..., dict[str, Tensor]]:
    """Values of sites as tensors of float64."""
    return lambda **values: {name: torch.as_tensor(np.array(value)) for name, value in values.items()}


@pytest.fixture
def make_record() -> Callable[..., dict[str, Any]]:
    """Return a run record of RAM, as far as tables read it."""

    def make(error=0.01, seconds=60.0, data="mnist", state="finished", config_hash="wanted", recipe_hash="recipe"):
        return {
            "state": state,
            "config_hash": config_hash,
            "recipe_hash": recipe_hash,
            "data": data,
            "wall_seconds": seconds,
            "metrics": {"test_error": error},
        }

    return make


@pytest.fixture
def leave_run(tmp_path, make_record) -> Callable[..., Path]:
    """Write the folder of a run: ``leave_run("a", state="finished")``."""

    def run(name: str, checkpoint: bool = True, **status: Any) -> Path:
        folder = tmp_path / "runs" / "ram" / name
        (folder / "checkpoints").mkdir(parents=True)
        if checkpoint:
            (folder / "checkpoints" / "last.ckpt").touch()
        (folder / "status.json").write_text(json.dumps(make_record(**status)))
        return folder

    return run
