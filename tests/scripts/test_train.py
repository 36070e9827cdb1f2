import json
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from zoo.cli._schemas import MODELS
from zoo.data import DatasetUnavailableError
from zoo.training import config_hash, read_checkpoint


@pytest.fixture
def nothing_begun(tmp_path):
    """Check that no run was begun: at most an empty folder is there."""

    def check():
        return not any(path.is_file() for path in tmp_path.rglob("*"))

    return check


@pytest.mark.parametrize(
    "name",
    ["evaluate.py", "examples/exploration/__main__.py", "examples/patients/__main__.py", "reproduce.py", "train.py"],
)
def test_every_script_has_help(name, script, nothing_begun):
    answer = script(name, "--help")
    assert (answer.code, answer.err) == (0, "")
    assert "=" in answer.out
    assert nothing_begun()


def test_help_of_a_model_describes_its_options(script, nothing_begun):
    answer = script("train.py", "model=ram", "--help")
    assert (answer.code, answer.err) == (0, "")
    assert "model.num_glimpses=6  (a whole number of 1 or more)\n    number of glimpses" in answer.out
    assert nothing_begun()


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_models_are_listed_without_arguments_and_for_help(arguments, script, nothing_begun):
    answer = script("train.py", *arguments)
    assert (answer.code, answer.err) == (0, "")
    assert all(f"  model={name} " in answer.out for name in MODELS)
    assert "resume=RUN" in answer.out
    assert nothing_begun()


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (["model=rma"], ["no model 'rma'", "ram", "Did you mean ram?"]),
            (["model=ram", "data=minst"], ["no data 'minst'", "Did you mean mnist?"]),
            (["model=ram", "model.lrr=1"], ["model.lrr"]),
            (["model=ram", "model.lr=banana"], ["model.lr", "banana"]),
            (["model=ram", "trainer.max_epochs=1.5"], ["trainer.max_epochs"]),
            (["model=ram", "data=idx"], ["data.root must be given"]),
            (["model=ram", "data=idx", "data.root=nowhere"], ["there is no folder", "nowhere"]),
            (
                ["model=ram", "data=mnist_5k", "model._target_=os.system"],
                ["_target_ 'os.system' may not be instantiated"],
            ),
            (
                ["model=ram", "data=captioned_scenes"],
                ["needs labeled images, which data=captioned_scenes does not", "set data=mnist|mnist_5k|"],
            ),
            (["model=ram", "data=image_folder"], ["data.root must be given"]),
            (["model=ram", "data=captioned_scenes", "data.num_captions=4"], ["data.num_captions must be from 1 to 3"]),
            (["data=mnist_5k"], ["choose a model: model=", "ram"]),
            (["resume=runs/ram/none"], ["runs/ram/none holds no run to resume"]),
            (["model=ram", "data=mnist_5k", "logger=csv", "seed=x"], ["seed"]),
        ],
    )
    def test_mistake_is_reported_before_anything_starts(self, arguments, named, script, nothing_begun):
        answer = script("train.py", *arguments)
        assert answer.code == 1
        assert all(words in answer.err for words in named)
        assert "Traceback" not in answer.err
        assert nothing_begun()

    @pytest.mark.parametrize(
        ("override", "named"),
        [
            ("model.num_glimpses=0", "num_glimpses must be a whole number of 1 or more, got 0"),
            ("model.location_policy=up", "location_policy must be one of learned, spiral, random, center, got "),
            ("estimator.baseline=best", "best"),
            ("trainer.batch_size=0", "batch_size must be at least 1, got 0"),
            ("trainer.max_epochs=0", "max_epochs must be at least 1, got 0"),
            ("trainer.max_epochs=-1", "max_epochs must be at least 1, got -1"),
            ("seed=-1", "seed must be between 0 and 4294967295, got -1"),
            ("trainer.accelerator=abacus", "abacus"),
            ("trainer.devices=0", "devices"),
            ("trainer.devices=x", "devices must be auto, a number of them, or indices such as 0,1; got 'x'"),
            ("trainer.devices=-1", "devices=-1 is not available here"),
            ("trainer.devices='0,1'", "devices=0,1 is not available here"),
            ("trainer.precision=16-mixed", "use bf16-mixed or 32-true"),
            ("model.spiral_radius=2", "spiral_radius must be between 0"),
            ("trainer.devices=999", "devices=999 would start as many processes on"),
            ("trainer.precision=17", "17"),
            ("+model.lrr=1", "has no option model.lrr; did you mean model.lr?"),
        ],
    )
    def test_invalid_value_is_reported_in_a_sentence(self, override, named, script, tiny):
        answer = script("train.py", *tiny("ram", override))
        assert answer.code == 1
        assert named in answer.err
        assert "Traceback" not in answer.err


class TestBeforeDownload:
    @pytest.mark.parametrize(("model", "wrong"), [("ram", "model.location_policy=up"), ("sbn", "model.optimizer=best")])
    def test_options_are_checked_before_a_download(self, model, wrong, script, monkeypatch):
        for name in ("find_mnist", "find_binarized_mnist"):
            monkeypatch.setattr(f"zoo.cli._composition.{name}", lambda: pytest.fail("looked for data"))
        answer = script("train.py", f"model={model}", wrong)
        assert answer.code == 1
        assert wrong.partition("=")[2] in answer.err

    @pytest.mark.parametrize("logger", ["tensorboard", "wandb", "mlflow"])
    def test_logger_that_is_not_installed_is_reported_with_the_remedy(self, logger, script, tiny, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        answer = script("train.py", *tiny("ram", f"logger={logger}"))
        assert (answer.code, f"pip install {logger}" in answer.err) == (1, True)


@pytest.mark.usefixtures("no_pictures")
class TestRun:
    def test_training_prints_metrics_and_the_evaluation_command(self, script, tiny, composed):
        answer = script("train.py", *tiny("ram"))
        (folder,) = Path("runs", "ram").iterdir()
        assert answer.code == 0
        assert "test error on squares: " in answer.out
        assert f"results are in {folder}/: " in answer.out
        assert f"python scripts/evaluate.py checkpoint={folder}/checkpoints/best.ckpt" in answer.out
        status = json.loads((folder / "status.json").read_text())
        assert status["state"] == "finished"
        assert status["command"] == f"python scripts/train.py {' '.join(tiny('ram'))}"
        assert status["config_hash"] == config_hash(composed(tiny("ram")))

    def test_sweep_over_seeds_writes_a_folder_for_each(self, script, tiny):
        answer = script("train.py", "-m", *tiny("ram", "seed=1,2", "trainer.max_epochs=1"))
        assert answer.code == 0
        records = [json.loads(path.read_text()) for path in Path("runs").glob("ram/*/status.json")]
        assert sorted(record["seed"] for record in records) == [1, 2]
        assert all(record["state"] == "finished" for record in records)
        assert sorted(path.name[-7:] for path in Path("runs", "ram").iterdir()) == ["-seed-1", "-seed-2"]
        assert "Run 2 of 2: seed=2" in answer.out
        head, *rows = answer.out.strip().splitlines()[-3:]
        assert head.split()[:2] == ["seed", "test_error"]
        assert [row.split()[0] for row in rows] == ["1", "2"]

    def test_sweep_over_models_takes_options_that_all_of_them_have(self, script):
        common = ["env=CliffWalking-v1", "env_kwargs.max_episode_steps=9", "model.lr=0.01", "trainer.max_epochs=1"]
        answer = script("train.py", "-m", "model=policy_gradient,q_learning", *common)
        assert answer.code == 0, answer.err
        assert [len(list(Path("runs", name).iterdir())) for name in ("policy_gradient", "q_learning")] == [1, 1]
        assert "Run 2 of 2: model=q_learning" in answer.out

    def test_run_that_ends_before_its_first_step_is_an_error(self, script, tiny):
        answer = script("train.py", *tiny("dqn", "trainer.max_epochs=1", "model.learning_starts=1000"))
        assert (answer.code, answer.err.strip()) == (
            1,
            "Error: nothing was trained: the run ended before its first step; let it last longer",
        )

    def test_failed_run_of_a_sweep_is_reported_and_the_others_are_trained(self, script, tiny):
        answer = script("train.py", "-m", *tiny("ram", "trainer.max_epochs=1", "model.patch_size=4,99,3"))
        assert answer.code == 1
        assert "Error: a patch of 99 pixels covers a whole side" in answer.err
        assert "Error: 1 of 3 runs failed" in answer.err
        assert "Traceback" not in answer.err
        assert "failed: " in answer.out
        records = [json.loads(path.read_text()) for path in Path("runs").glob("ram/*/status.json")]
        assert [record["state"] for record in records] == ["finished", "finished"]


@pytest.mark.usefixtures("no_pictures")
class TestInitFrom:
    def test_init_from_loads_weights_and_is_recorded(self, script, tiny, finished, differences):
        checkpoint = finished("ram") / "checkpoints" / "last.ckpt"
        slow = ["model.lr=1e-60", "model.weight_decay=0", "trainer.max_epochs=1", "seed=5"]
        answer = script("train.py", *tiny("ram", *slow, f"init_from={checkpoint}"))
        assert answer.code == 0, answer.err
        (folder,) = Path("runs", "ram").iterdir()
        states = [read_checkpoint(path)["state_dict"] for path in (checkpoint, folder / "checkpoints" / "last.ckpt")]
        assert differences(*states) == []
        config = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
        assert config["init_from"] == str(checkpoint)
        assert json.loads((folder / "status.json").read_text())["config_hash"] == config_hash(config)

    @pytest.mark.parametrize(
        ("more", "complaint"),
        [(["model.location_hidden=9"], "other layers"), (["init_from=none.ckpt"], "there is no checkpoint none.ckpt")],
    )
    def test_init_from_another_model_is_refused(self, more, complaint, script, tiny, finished):
        checkpoint = finished("ram") / "checkpoints" / "last.ckpt"
        answer = script("train.py", *tiny("ram", f"init_from={checkpoint}", *more))
        assert (answer.code, complaint in answer.err) == (1, True)


class TestResume:
    @pytest.fixture
    def run(self, finished, tmp_path):
        return shutil.copytree(finished("ram"), tmp_path / "run").relative_to(tmp_path)

    def test_resume_with_other_settings_is_refused(self, script, run):
        before = (run / "status.json").read_bytes()
        answer = script("train.py", f"resume={run}", "model.lr=0.5")
        assert answer.code == 1
        assert "with resume=RUN only" in answer.err
        assert (run / "status.json").read_bytes() == before

    def test_resume_extends_a_run_and_records_it(self, script, run):
        before = (run / "metrics.csv").read_text().splitlines()
        answer = script("train.py", f"resume={run}", "trainer.max_epochs=3")
        assert answer.code == 0, answer.err
        config = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))
        assert config["trainer"]["max_epochs"] == 3
        assert config["extended"] == {"trainer.max_epochs": [2]}
        status = json.loads((run / "status.json").read_text())
        assert status["config_hash"] == config_hash(config)
        after = (run / "metrics.csv").read_text().splitlines()
        assert (after[: len(before)], len(after) > len(before)) == (before, True)
        assert script("train.py", f"resume={run}", "trainer.max_epochs=3").code == 0  # as if it had been interrupted
        answer = script("train.py", f"resume={run}", "trainer.max_epochs=2")
        assert (answer.code, "can only become larger" in answer.err) == (1, True)
        answer = script("train.py", f"resume={run}", "model.total_timesteps=2")
        assert (answer.code, "set trainer.max_epochs=..." in answer.err) == (1, True)

    def test_resume_works_in_a_folder_with_any_name(self, script, run):
        strange = run.with_name("r=1, (ü) ~'x'")
        run.rename(strange)
        answer = script("train.py", f"resume={strange}")
        assert answer.code == 0, answer.err

    def test_resume_resolves_and_runs_nothing_from_the_folder(self, script, run, monkeypatch):
        monkeypatch.setenv("SECRET", "7")
        text = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(text.replace("seed: 1", "seed: ${oc.env:SECRET}", 1))
        answer = script("train.py", f"resume={run}")
        assert answer.code == 1
        assert "config.yaml is damaged (seed must be a whole number, got '${oc.env:SECRET}')" in answer.err

    def test_resume_from_a_damaged_checkpoint_names_it_and_keeps_it(self, script, run):
        path = run / "checkpoints" / "last.ckpt"
        path.write_bytes(path.read_bytes()[:1000])
        answer = script("train.py", f"resume={run}")
        assert answer.code == 1
        assert "last.ckpt is damaged" in answer.err
        assert path.stat().st_size == 1000

    @pytest.mark.parametrize("content", ["", "model: [", "seed: 1", "- 1"])
    def test_resume_from_a_damaged_configuration_names_it(self, content, script, run):
        (run / "config.yaml").write_text(content)
        answer = script("train.py", f"resume={run}")
        assert answer.code == 1
        assert "config.yaml is damaged" in answer.err
        assert "Traceback" not in answer.err


class TestWithoutMNIST:
    @pytest.fixture(autouse=True)
    def no_mnist(self, monkeypatch):
        def find():
            raise DatasetUnavailableError("no files, no network")

        monkeypatch.setattr("zoo.cli._composition.find_mnist", find)
        monkeypatch.setattr("zoo.data.mnist.find_mnist", find)

    @pytest.mark.usefixtures("no_pictures")
    def test_run_without_mnist_uses_and_records_mnist_5k(self, script, caplog):
        cheap = ["model.num_glimpses=2", "model.patch_size=4", "trainer.max_epochs=1", "trainer.batch_size=512"]
        answer = script("train.py", "model=ram", *cheap)
        assert answer.code == 0
        assert "Using mnist-5k instead" in caplog.text
        assert "test error on mnist-5k: " in answer.out
        (folder,) = Path("runs", "ram").iterdir()
        assert json.loads((folder / "status.json").read_text())["data"] == "mnist-5k"
        assert "lr: 0.001" in (folder / "config.yaml").read_text()

    def test_run_on_mnist_is_not_resumed_on_other_data(self, script, composed, tmp_path):
        OmegaConf.save(OmegaConf.create(composed(["model=ram"])), tmp_path / "config.yaml")
        answer = script("train.py", f"resume={tmp_path}")
        assert answer.code == 1
        assert "no files, no network" in answer.err
