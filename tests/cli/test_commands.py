import dataclasses
import errno
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from zoo.attention.ram.experiment import RecurrentAttentionExperiment
from zoo.cli import _commands as runs
from zoo.cli._commands import evaluate, make_experiment, train
from zoo.training import TrainingInterruptedError, read_checkpoint, read_status
from zoo.training._files import folder_lock


@pytest.fixture
def config(tiny, composed):
    return composed(tiny("ram", "trainer.max_epochs=1"))


@pytest.fixture
def run(finished, tmp_path):
    """A finished run that a test may change."""
    return shutil.copytree(finished("ram"), tmp_path / "run")


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_run_folder_holds_record_configuration_metrics_checkpoints_and_figures_only(config, tmp_path):
    train(config, tmp_path, "command")
    checkpoints = {"checkpoints/last.ckpt", "checkpoints/best.ckpt"}
    pictures = {"glimpses.png", "glimpses.gif"}
    assert names(tmp_path) == {"status.json", "config.yaml", "metrics.csv", *checkpoints, *pictures}


@pytest.mark.usefixtures("no_pictures")
class TestTrain:
    def test_training_records_and_describes_its_metrics(self, config, tmp_path):
        outcome = train(config, tmp_path / "run", "python scripts/train.py model=ram")
        status = read_status(tmp_path / "run" / "status.json")
        assert (status["state"], status["data"], status["seed"]) == ("finished", "squares", 1)
        assert status["command"] == "python scripts/train.py model=ram"
        assert status["metrics"] == outcome.metrics
        assert all(0 <= outcome.metrics[name] <= 1 for name in ("test_error", "test_error_mc10"))
        assert f"test error on squares: {100 * outcome.metrics['test_error']:.2f} %" in outcome.summary

    def test_training_writes_the_whole_configuration(self, config, tmp_path):
        train(config, tmp_path, "command")
        assert OmegaConf.to_container(OmegaConf.load(tmp_path / "config.yaml")) == config

    def test_test_set_is_read_once_at_the_end(self, config, tmp_path, monkeypatch):
        steps = []

        def watched(config, trust):
            experiment = make_experiment(config, trust)
            load = experiment.data.load_test

            def load_test():
                steps.append(experiment.module.global_step)
                return load()

            experiment.data = dataclasses.replace(experiment.data, load_test=load_test)
            return experiment

        monkeypatch.setattr(runs, "make_experiment", watched)
        train(config, tmp_path, "command")
        assert steps == [4]

    def test_invalid_data_are_an_error_before_anything_is_written(self, config, tmp_path):
        config["data"]["root"] = str(tmp_path / "nowhere")
        with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
            train(config, tmp_path / "run", "command")
        assert not (tmp_path / "run").exists()

    def test_folder_with_another_configuration_is_refused_and_unchanged(self, run, tiny, composed):
        before = {name: (run / name).read_bytes() for name in names(run)}
        with pytest.raises(ValueError, match="holds a run of another configuration"):
            train(composed(tiny("ram", "model.lr=0.5")), run, "command")
        assert {name: (run / name).read_bytes() for name in names(run)} == before

    def test_damaged_record_is_an_error_that_names_it(self, run, tiny, composed):
        (run / "status.json").write_text("{")
        with pytest.raises(ValueError, match=r"status\.json is damaged"):
            train(composed(tiny("ram")), run, "command")

    def test_finished_run_is_evaluated_again_but_not_trained(self, run, tiny, composed, differences):
        before = read_checkpoint(run / "checkpoints" / "last.ckpt"), read_status(run / "status.json")
        outcome = train(composed(tiny("ram")), run, "command")
        assert differences(read_checkpoint(run / "checkpoints" / "last.ckpt"), before[0]) == []
        assert outcome.metrics == before[1]["metrics"]

    def test_failure_of_the_evaluation_is_recorded_and_keeps_the_training(self, config, tmp_path, monkeypatch):
        def fail(*args):
            raise OSError("disk full")

        with monkeypatch.context() as patch:
            patch.setattr(RecurrentAttentionExperiment, "report", fail)
            with pytest.raises(OSError, match="disk full"):
                train(config, tmp_path, "command")
        status = read_status(tmp_path / "status.json")
        assert (status["state"], status["exit_reason"]) == ("failed", "OSError: disk full")
        train(config, tmp_path, "command")
        assert read_status(tmp_path / "status.json")["state"] == "finished"

    def test_ctrl_c_during_the_evaluation_is_an_interruption(self, config, tmp_path, monkeypatch):
        def stop(*args):
            raise KeyboardInterrupt

        monkeypatch.setattr(RecurrentAttentionExperiment, "report", stop)
        with pytest.raises(TrainingInterruptedError, match="stopped during the evaluation; the training is saved"):
            train(config, tmp_path, "command")
        assert read_status(tmp_path / "status.json")["state"] == "interrupted"


@pytest.mark.usefixtures("no_pictures")
class TestFolder:
    @pytest.fixture
    def do_within(self, monkeypatch, at):
        """Have something done at the second step of the next runs."""
        return lambda act: monkeypatch.setattr(
            RecurrentAttentionExperiment, "callbacks", lambda self: [at(2, lambda module: act())]
        )

    def test_folder_removed_during_a_run_ends_it_and_is_not_recreated(self, config, do_within, tmp_path):
        do_within(lambda: shutil.rmtree(tmp_path / "run"))
        with pytest.raises(OSError, match=r"cannot be written .*: its folder is not there, or was removed meanwhile"):
            train(config, tmp_path / "run", "command")
        assert not (tmp_path / "run").exists()

    def test_folder_in_use_by_another_process_is_refused_and_unchanged(self, run, tiny, composed):
        before = {name: (run / name).read_bytes() for name in names(run)}
        with folder_lock(run), pytest.raises(ValueError, match=r"another process is at work in .*; stop it first"):
            train(composed(tiny("ram")), run, "command")
        assert {name: (run / name).read_bytes() for name in names(run)} == before

    def test_full_disk_is_an_error_after_which_the_run_can_be_resumed(self, config, do_within, tmp_path, monkeypatch):
        replace = os.replace

        def full(source, target):
            if Path(target).name in ("last.ckpt", "status.json"):
                raise OSError(errno.ENOSPC, "No space left on device")
            replace(source, target)

        do_within(lambda: monkeypatch.setattr(os, "replace", full))
        with pytest.raises(OSError, match=r"last\.ckpt cannot be written \(No space left .*free space .* resume=RUN"):
            train(config, tmp_path, "command")
        monkeypatch.setattr(os, "replace", replace)
        do_within(lambda: None)
        assert not list(tmp_path.rglob("*.unfinished"))
        train(config, tmp_path, "command")
        assert read_status(tmp_path / "status.json")["state"] == "finished"

    def test_folder_that_cannot_be_created_is_an_error_with_the_reason(self, config, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(
            OSError, match=r"file/run cannot be written \(Not a directory\): part of its path is a file"
        ):
            train(config, tmp_path / "file" / "run", "command")

    def test_configuration_is_written_before_the_record(self, config, tmp_path, monkeypatch):
        written = []
        monkeypatch.setattr(os, "replace", lambda source, target: written.append(Path(target).name))
        with suppress(OSError):
            train(config, tmp_path, "command")
        assert written[:2] == ["config.yaml", "status.json"]


class TestEvaluate:
    def test_evaluation_returns_the_test_error_of_training_and_of_the_controls(self, run):
        reported = read_status(run / "status.json")["metrics"]
        outcome = evaluate(run / "checkpoints" / "best.ckpt", run)
        assert outcome.metrics.items() >= reported.items()
        assert {"test_error_random_locations", "test_error_center_locations"} <= outcome.metrics.keys()
        assert "with all glimpses of the same model at random locations" in outcome.summary
        assert json.loads((run / "evaluation.json").read_text())["metrics"] == outcome.metrics
        assert (run / "misclassified.png").stat().st_size > 1000

    @pytest.mark.usefixtures("no_pictures")
    def test_evaluation_leaves_the_run_record_unchanged(self, run):
        before = (run / "status.json").read_bytes()
        evaluate(run / "checkpoints" / "last.ckpt", run)
        assert (run / "status.json").read_bytes() == before

    def test_missing_or_foreign_checkpoint_is_an_error_and_writes_nothing(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
            evaluate(tmp_path / "none.ckpt", tmp_path / "none")
        torch.save({"weight": torch.zeros(1)}, tmp_path / "foreign.ckpt")
        with pytest.raises(ValueError, match="not a checkpoint of this project"):
            evaluate(tmp_path / "foreign.ckpt", tmp_path / "foreign")
        assert names(tmp_path) == {"foreign.ckpt"}

    def test_checkpoint_cannot_instantiate_what_a_configuration_cannot(self, run):
        path = run / "checkpoints" / "last.ckpt"
        checkpoint = read_checkpoint(path)
        checkpoint["config"]["data"] = {"_target_": "os.mkdir", "path": str(run / "sprung")}
        torch.save(checkpoint, path)
        with pytest.raises(ValueError, match="may not be instantiated"):
            evaluate(path, run)
        assert not (run / "sprung").exists()


@pytest.mark.parametrize(("model", "part"), [("dqn", "env"), ("q_learning", "env"), ("bbvi", "program")])
def test_missing_env_or_program_is_an_error(model, part, tiny, composed):
    config = composed(tiny(model))
    with pytest.raises(ValueError, match=f"this model needs {part}: set {part}=NAME"):
        make_experiment({**config, part: None})
