import csv
import math
import signal
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf

from zoo.cli._commands import make_experiment, train
from zoo.cli._composition import resolve
from zoo.cli._schemas import MODELS
from zoo.training import NonFiniteError, config_hash, read_checkpoint, read_status

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def run(model, finished):
    """Folder of a finished run of two epochs of four steps."""
    return finished(model)


@pytest.fixture
def config(model, tiny, composed):
    return composed(tiny(model))


def module_of(config):
    """The model as it is before its first step."""
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    return make_experiment(config).module


class TestTraining:
    def test_training_changes_every_learned_weight(self, config, run):
        trained = read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]
        for name, weight in module_of(config).named_parameters():
            assert torch.equal(weight, trained[name]) != weight.requires_grad, name

    def test_training_yields_finite_metrics(self, run):
        with (run / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["step"] for row in rows] == ["3", "7"]
        assert all(math.isfinite(float(value)) for row in rows for value in row.values() if value)
        status = read_status(run / "status.json")
        assert status["state"] == "finished"
        assert all(math.isfinite(value) for value in status["metrics"].values())

    def test_same_seed_yields_same_weights_and_metrics(self, config, run, end_differences, tmp_path):
        train(config, tmp_path / "again", "command")
        assert end_differences(run, tmp_path / "again") == []
        assert (run / "metrics.csv").read_text() == (tmp_path / "again" / "metrics.csv").read_text()
        one, other = (read_status(folder / "status.json") for folder in (run, tmp_path / "again"))
        assert one["metrics"] == other["metrics"]

    @pytest.mark.usefixtures("without_type_checks")
    def test_another_seed_yields_other_weights(self, model, tiny, composed, run, end_differences, tmp_path):
        train(composed(tiny(model, "seed=2")), tmp_path / "other", "command")
        different = end_differences(run, tmp_path / "other")
        weights = [name for name, _ in module_of(composed(tiny(model))).named_parameters()]
        assert {f"/state_dict/{name}" for name in weights} <= set(different)


def test_checkpoints_hold_plain_data(run):
    files = {path.stem: path for path in (run / "checkpoints").iterdir()}
    assert "last" in files
    parts = {"state_dict", "optimizer_states", "lr_schedulers", "random_states", "config", "model"}
    for path in files.values():
        assert torch.load(path, weights_only=True).keys() >= parts


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_training_stopped_within_an_epoch_is_resumed_exactly(number, model, tiny, run, do_at, script, end_differences):
    do_at(6, lambda module: signal.raise_signal(number))
    stopped = script("train.py", *tiny(model))
    (folder,) = Path("runs", model).iterdir()
    assert stopped.code == 130
    assert f"stopped after step 6, and saved. Resume with:  python scripts/train.py resume={folder}\n" in stopped.out
    status = read_status(folder / "status.json")
    assert (status["state"], status["exit_reason"]) == ("interrupted", "stopped after step 6, and saved")
    assert read_checkpoint(folder / "checkpoints" / "last.ckpt")["global_step"] == 6

    do_at(None)
    resumed = script("train.py", f"resume={folder}")
    assert resumed.code == 0
    assert end_differences(run, folder) == []
    whole, parts = read_status(run / "status.json"), read_status(folder / "status.json")
    assert parts["state"] == "finished"
    assert parts["metrics"] == whole["metrics"]
    assert parts["config_hash"] == whole["config_hash"]


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("which", [0, -1], ids=["the first", "the last"])
def test_nan_weight_stops_training_with_step_and_term_and_keeps_the_checkpoint(
    which, config, run, do_at, end_differences, tmp_path
):
    def spoil(module):
        [p for p in module.parameters() if p.requires_grad][which].data.fill_(float("nan"))

    do_at(6, spoil)
    with pytest.raises(NonFiniteError, match=r"the loss is not finite at step 5: [\w-]+ \(nan\)"):
        train(config, tmp_path, "command")
    status = read_status(tmp_path / "status.json")
    assert status["state"] == "failed"
    assert "NonFiniteError: the loss is not finite at step 5" in status["exit_reason"]
    saved = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert saved["global_step"] == 4
    assert all(x.isfinite().all() for x in saved["state_dict"].values())

    do_at(None)
    train(config, tmp_path, "command")
    assert end_differences(run, tmp_path) == []


def test_written_configuration_is_the_given_one(config, run):
    kept = resolve(OmegaConf.load(run / "config.yaml"))
    assert kept == config
    assert config_hash(kept) == read_status(run / "status.json")["config_hash"] == config_hash(config)


def loose_tensors(module):
    """Tensors that a module holds without having registered them, and so would leave behind when it moves."""

    def within(value):
        if isinstance(value, torch.Tensor):
            return True
        if isinstance(value, dict):
            return any(map(within, value.values()))
        return isinstance(value, list | tuple | set) and any(map(within, value))

    registered = {"_parameters", "_buffers", "_modules"}
    return [
        f"{path}.{name}"
        for path, part in module.named_modules()
        for name, value in vars(part).items()
        if name not in registered and within(value)
    ]


class TestMoving:
    def test_moving_a_model_moves_every_tensor(self, config):
        module = module_of(config)
        assert loose_tensors(module) == []
        tensors = [*module.to("meta").parameters(), *module.buffers()]
        assert {tensor.device.type for tensor in tensors} == {"meta"}

    def test_tensor_left_behind_by_a_move_is_detected(self, config):
        module = module_of(config)
        module.grid = [torch.zeros(2)]
        assert loose_tensors(module) == [".grid"]

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    def test_model_trained_on_a_gpu_is_evaluated_on_the_cpu(self, model, tiny, composed, tmp_path):
        config = composed(tiny(model, "trainer.accelerator=gpu"))
        train(config, tmp_path, "command")
        loaded = MODELS[model].options_of.load(tmp_path / "checkpoints" / "last.ckpt")
        assert {weight.device.type for weight in loaded.parameters()} == {"cpu"}
