"""The wheel, built from the checkout and installed into an environment of its own."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHORT = ["model.steps_per_epoch=4", "trainer.max_epochs=1"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture
def install(tmp_path):
    """Install a wheel without its dependencies, which are those of this environment."""

    def make(wheel):
        venv.create(tmp_path / "venv", with_pip=True)
        python = tmp_path / "venv" / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel], check=True)
        (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
        (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
        return site

    return make


@pytest.fixture
def zoo(tmp_path):
    """Run the installed command in an empty folder: ``zoo("train", "model=ram")``."""
    (folder := tmp_path / "empty").mkdir()
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "ZOO_DATA")}

    def run(*arguments, command=("zoo",)):
        command = [tmp_path / "venv" / "bin" / command[0], *command[1:], *arguments]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)

    return run


def runs(tmp_path, model):
    return sorted((tmp_path / "empty" / "runs" / model).iterdir())


def test_models_are_listed_trained_and_evaluated_in_any_folder(wheel, install, zoo, tmp_path):
    install(wheel)
    assert "model=bbvi" in zoo("list").stdout
    trained = zoo("train", "model=bbvi", "program=beta_bernoulli", *SHORT)
    assert trained.returncode == 0, trained.stderr
    (folder,) = runs(tmp_path, "bbvi")
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["git_commit"]) == ("finished", None)
    assert status["command"].startswith("zoo train model=bbvi")
    assert "evaluate with:  zoo evaluate checkpoint=runs/bbvi/" in trained.stdout
    evaluated = zoo("evaluate", f"checkpoint={folder}/checkpoints/last.ckpt", command=("python", "-m", "zoo"))
    assert evaluated.returncode == 0, evaluated.stderr
    assert (folder / "evaluation.json").is_file()
    resumed = zoo("train", f"resume={folder}", "trainer.max_epochs=2")
    assert resumed.returncode == 0, resumed.stderr


def test_sweep_and_training_in_two_processes_run(wheel, install, zoo, tmp_path, squares):
    install(wheel)
    swept = zoo("train", "-m", "model=bbvi", *SHORT, "seed=1,2")
    assert swept.returncode == 0, swept.stderr
    assert len(runs(tmp_path, "bbvi")) == 2
    for command in (("zoo",), ("python", "-m", "zoo")):
        two = ["model=ram", "data=idx", f"data.root={squares}", "trainer.accelerator=cpu", "trainer.devices=2"]
        options = ["trainer.max_epochs=1", "trainer.batch_size=16", "model.patch_size=4"]
        done = zoo("train", *two, *options, command=command)
        assert done.returncode == 0, done.stderr
    for folder in runs(tmp_path, "ram"):
        assert json.loads((folder / "status.json").read_text())["state"] == "finished"


def test_table_is_reproduced_below_the_current_folder(wheel, install, zoo, tmp_path):
    install(wheel)
    made = zoo("reproduce", "paper=tabular", "budget=smoke", "rows=[cliff]")
    assert made.returncode == 0, made.stderr
    assert "$ zoo train experiment=q_learning_cliff_walking" in made.stdout
    assert len(runs(tmp_path, "q_learning")) == 1
    refused = zoo("reproduce", "paper=tabular", "publish=true")
    assert refused.returncode == 1
    assert "publish=true writes into a checkout" in refused.stderr


def test_wheel_without_configuration_files_is_reported(wheel, install, zoo):
    site = install(wheel)
    for path in sorted((site / "zoo" / "configs").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    answer = zoo("train", "model=bbvi")
    assert answer.returncode == 1
    assert "the configuration files are missing" in answer.stderr
    assert answer.stderr.strip().count("\n") == 0
