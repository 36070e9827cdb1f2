import sys
import warnings

import pytest
from pytorch_lightning.loggers.logger import DummyLogger

from zoo.training import Loaders, TrainingInterruptedError, read_checkpoint
from zoo.training._fit import RunDataModule, extra_loggers


def step_of(path):
    return read_checkpoint(path)["global_step"]


class TestCheckpoints:
    def test_training_writes_metrics_and_two_checkpoints_only(self, train, tmp_path):
        train(tmp_path / "run")
        left = {str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").rglob("*") if path.is_file()}
        assert left == {"metrics.csv", "checkpoints/last.ckpt", "checkpoints/best.ckpt"}

    @pytest.mark.parametrize(("errors", "best"), [((0.5, 0.25), 8), ((0.25, 0.5), 4)])
    def test_last_checkpoint_is_of_the_last_epoch_and_best_of_the_best(self, errors, best, noisy, train, tmp_path):
        assert train(tmp_path, module=noisy(errors)) == tmp_path / "checkpoints" / "best.ckpt"
        assert step_of(tmp_path / "checkpoints" / "best.ckpt") == best
        assert step_of(tmp_path / "checkpoints" / "last.ckpt") == 8

    def test_best_checkpoint_has_the_largest_metric_with_mode_max(self, noisy, train, tmp_path):
        train(tmp_path, module=noisy((0.5, 0.25)), monitor_mode="max")
        assert step_of(tmp_path / "checkpoints" / "best.ckpt") == 4

    @pytest.mark.parametrize("validation", [True, False])
    def test_last_checkpoint_exists_after_the_first_epoch(self, validation, noisy, at, train, tmp_path):
        steps = []
        look = at(8, lambda module: steps.append(step_of(tmp_path / "checkpoints" / "last.ckpt")))
        train(tmp_path, look, module=noisy((0.25, 0.5)), validation=validation)
        assert steps == [4]

    def test_last_checkpoint_is_returned_without_validation_data(self, train, tmp_path):
        assert train(tmp_path, validation=False) == tmp_path / "checkpoints" / "last.ckpt"
        assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]

    def test_last_checkpoint_is_returned_without_a_monitored_metric(self, train, tmp_path):
        assert train(tmp_path, monitor=None) == tmp_path / "checkpoints" / "last.ckpt"
        assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]

    def test_best_checkpoint_of_an_interrupted_run_is_the_best_of_all_epochs(self, noisy, interrupt, train, tmp_path):
        with pytest.raises(TrainingInterruptedError):
            train(tmp_path, interrupt(6), module=noisy((0.25, 0.5)))
        train(tmp_path, module=noisy((0.25, 0.5)))
        assert step_of(tmp_path / "checkpoints" / "best.ckpt") == 4

    def test_best_checkpoint_is_found_after_run_folder_is_moved(self, noisy, interrupt, train, tmp_path):
        with pytest.raises(TrainingInterruptedError):
            train(tmp_path / "here", interrupt(6), module=noisy((0.25, 0.5)))
        (tmp_path / "here").rename(tmp_path / "there")
        assert train(tmp_path / "there", module=noisy((0.25, 0.5))) == tmp_path / "there" / "checkpoints" / "best.ckpt"
        assert step_of(tmp_path / "there" / "checkpoints" / "best.ckpt") == 4
        assert not (tmp_path / "here").exists()


class TestMaxEpochs:
    def test_loaders_determine_max_epochs_if_the_configuration_does_not(self, train, tmp_path):
        train(tmp_path, max_epochs=None, default_epochs=1)
        assert step_of(tmp_path / "checkpoints" / "last.ckpt") == 4

    def test_max_epochs_of_the_configuration_wins_over_the_loaders(self, train, tmp_path):
        train(tmp_path, max_epochs=2, default_epochs=1)
        assert step_of(tmp_path / "checkpoints" / "last.ckpt") == 8

    @pytest.mark.parametrize(
        "asked", [{"max_epochs": None}, {"max_epochs": 0}, {"max_epochs": None, "default_epochs": 0}]
    )
    def test_no_epochs_is_an_error(self, asked, train, tmp_path):
        with pytest.raises(ValueError, match="max_epochs must be at least 1"):
            train(tmp_path, **asked)


class TestResume:
    def test_finished_run_is_unchanged(self, train, at, tmp_path):
        train(tmp_path)
        metrics = (tmp_path / "metrics.csv").read_text()
        steps = []
        train(tmp_path, *(at(step, lambda module: steps.append(module.global_step)) for step in range(1, 20)))
        assert steps == []
        assert (tmp_path / "metrics.csv").read_text() == metrics

    def test_resuming_from_a_damaged_checkpoint_is_an_error_and_keeps_the_file(self, train, tmp_path):
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"half")
        with pytest.raises(ValueError, match=r"last\.ckpt is damaged"):
            train(tmp_path)
        assert (tmp_path / "checkpoints" / "last.ckpt").read_bytes() == b"half"

    def test_resuming_from_another_model_is_an_error(self, train, noisy, tmp_path):
        class Quiet(noisy):
            pass

        train(tmp_path)
        with pytest.raises(ValueError, match="is a checkpoint of Noisy, not of Quiet"):
            train(tmp_path, module=Quiet())

    def test_resuming_prints_no_warnings(self, train, interrupt, tmp_path, capsys):
        with pytest.raises(TrainingInterruptedError):
            train(tmp_path, interrupt(5))
        capsys.readouterr()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
            train(tmp_path)
        assert capsys.readouterr() == ("epoch 2/2  validation error 25.00 %\n", "")


def test_same_seed_yields_same_weights_and_another_seed_others(train, noisy, tmp_path, monkeypatch, differences):
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        monkeypatch.setitem(train.__globals__["SETTINGS"], "seed", seed)
        train(tmp_path / name)
        weights.append(read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt")["state_dict"])
    assert differences(weights[0], weights[1]) == []
    assert "/net.weight" in differences(weights[0], weights[2])


class TestLoggers:
    def test_csv_needs_no_additional_logger(self, tmp_path):
        assert extra_loggers({"name": "csv", "project": "tests"}, tmp_path) == []

    @pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
    def test_logger_without_its_package_is_an_error_with_the_remedy(self, name, tmp_path, monkeypatch):
        def missing(*args, **kwargs):
            raise ModuleNotFoundError

        for kind in ("TensorBoardLogger", "WandbLogger", "MLFlowLogger"):
            monkeypatch.setattr(sys.modules["zoo.training._fit"], kind, missing)
        with pytest.raises(ValueError, match=f"logger={name} needs its package: pip install {name}"):
            extra_loggers({"name": name, "project": "tests"}, tmp_path)


def test_batches_are_available_only_to_a_trainer():
    with pytest.raises(RuntimeError, match="only while a trainer runs"):
        RunDataModule(Loaders(lambda rank, ranks: [], None)).train_dataloader()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "diary", "project": "tests"}, "there is no logger 'diary'; choose one of csv, tensorboard"),
        ({"name": {}, "project": "tests"}, r"invalid logger \(name is {}\); choose one with logger=NAME"),
        ({"name": "wandb"}, r"invalid logger \(it lacks project\)"),
    ],
)
def test_unknown_logger_is_an_error(settings, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        extra_loggers(settings, tmp_path)


def test_mlflow_writes_to_a_database_in_the_run_folder(monkeypatch, tmp_path):
    given = {}
    made = DummyLogger()
    monkeypatch.setattr(
        sys.modules["zoo.training._fit"], "MLFlowLogger", lambda project, **more: given.update(more) or made
    )
    assert extra_loggers({"name": "mlflow", "project": "mine"}, tmp_path) == [made]
    assert given["tracking_uri"] == f"sqlite:///{tmp_path}/mlflow.db"  # MLflow refuses the folder that is the default
