"""``model=bbvi`` on the command line: programs of one's own, and what may be wrong with them."""

import json
from pathlib import Path

import pytest

from zoo.training import read_checkpoint

HEAD = """
import pyro
import pyro.distributions as dist
import torch

data = torch.tensor([-1.0, 2.0])

def model():
    with pyro.plate("data", 2):
        z = pyro.sample("z", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(z, 1.0), obs=data)

def guide():
    with pyro.plate("data", 2):
        pyro.sample("z", dist.Bernoulli(logits=pyro.param("logits", torch.zeros(2))))
"""
OTHERS = """
def nameless():
    with pyro.plate("data", 2):
        pyro.sample("zz", dist.Bernoulli(logits=pyro.param("logits", torch.zeros(2))))

def observing():
    guide()
    pyro.sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1), obs=data)

def unsupported():
    with pyro.plate("data", 2):
        pyro.sample("z", dist.Normal(pyro.param("mean", torch.zeros(2)), 1.0))

def spoilt():
    with pyro.plate("data", 2):
        z = pyro.sample("z", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(z, 1.0), obs=data + torch.nan)

def needy(x):
    guide()

def aimless():
    with pyro.plate("data", 2):
        pyro.sample("z", dist.Bernoulli(0.5))
"""
SHORT = ["model.steps_per_epoch=4", "model.num_eval_samples=100", "trainer.max_epochs=2"]


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(HEAD + OTHERS)


@pytest.mark.usefixtures("own")
class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (["program=eight_scools"], "unknown program 'eight_scools'; choose one of beta_bernoulli, eight_schools"),
            (
                ["program=kidiq"],
                "the data of kidiq-kidscore_momhs are looked for in $ZOO_DATA",
            ),
            (
                ["program=own.py:model:guide"],
                "runs the code in own.py with your permissions; read it, and add",
            ),
            (
                ["program=own.py:model", "trust=true"],
                "must be given as program=FILE.py:MODEL:GUIDE, got program=own.py:model",
            ),
            (["program=none.py:model:guide", "trust=true"], "file none.py does not exist"),
            (
                ["program=own.py:modell:guide", "trust=true"],
                "own.py has no function or module 'modell'; it has: model, ",
            ),
            (
                ["program=own.py:model:nameless", "trust=true"],
                "guide samples site 'zz', which the model does not have",
            ),
            (["program=own.py:model:observing", "trust=true"], "the guide observes site 'x'; only the model may"),
            (
                ["program=own.py:model:unsupported", "trust=true"],
                "outside the support of the model's site 'z' (Bernoulli)",
            ),
            (["program=own.py:spoilt:guide", "trust=true"], "the data of site 'x' (Normal) contain NaN"),
            (["program=own.py:model:needy", "trust=true"], "own.py: TypeError: needy() missing 1 required positional"),
            (["program=own.py:model:aimless", "trust=true"], "neither the model nor the guide has trainable"),
            (["model.num_particles=1"], "needs at least 2 particles: set num_particles=2 or more, got 1"),
            (["model.num_particles=0"], "num_particles must be a whole number of 1 or more, got 0"),
            (["model.optimizer=best"], "unknown optimizer 'best'; choose one of adam, adagrad"),
            (["model.schedule=up"], "unknown schedule 'up'; choose one of constant, cosine"),
            (["estimator.baseline=learned"], "of beta_bernoulli does not have; choose another baseline"),
            (["model.steps_per_epoch=0"], "steps_per_epoch must be a whole number of 1 or more"),
            (["env=CartPole-v1"], "this model does not use env: remove env=..."),
        ],
    )
    def test_mistake_is_answered_in_one_sentence(self, arguments, named, script, monkeypatch):
        monkeypatch.delenv("ZOO_DATA", raising=False)
        answer = script("train.py", "model=bbvi", *SHORT, *arguments)
        assert answer.code == 1
        assert named in answer.err
        assert "Traceback" not in answer.err
        assert answer.err.strip().count("\n") == 0

    def test_program_is_refused_for_other_models(self, script, tiny):
        answer = script("train.py", *tiny("q_learning", "program=eight_schools"))
        assert answer.code == 1
        assert "this model does not use program: remove program=..." in answer.err


@pytest.mark.usefixtures("own", "no_pictures")
class TestProgramOfUser:
    def test_program_of_a_user_is_trained_and_described(self, script):
        answer = script("train.py", "model=bbvi", "program=own.py:model:guide", "trust=true", *SHORT)
        assert answer.code == 0, answer.err
        assert "own.py:model:guide: model and guide of own.py" in answer.out
        assert "z[1]" in answer.out
        (folder,) = Path("runs", "bbvi").iterdir()
        assert json.loads((folder / "status.json").read_text())["state"] == "finished"

    def test_program_of_a_user_is_evaluated_only_with_trust(self, script):
        script("train.py", "model=bbvi", "program=own.py:model:guide", "trust=true", *SHORT)
        (folder,) = Path("runs", "bbvi").iterdir()
        checkpoint = f"checkpoint={folder}/checkpoints/last.ckpt"
        refused = script("evaluate.py", checkpoint)
        assert refused.code == 1
        assert "runs the code in own.py" in refused.err
        answer = script("evaluate.py", checkpoint, "trust=true")
        assert answer.code == 0, answer.err
        assert "ELBO" in answer.out

    def test_program_of_a_user_is_resumed_only_with_trust(self, script):
        script("train.py", "model=bbvi", "program=own.py:model:guide", "trust=true", *SHORT)
        (folder,) = Path("runs", "bbvi").iterdir()
        refused = script("train.py", f"resume={folder}")
        assert refused.code == 1
        assert "runs the code in own.py" in refused.err
        assert script("train.py", f"resume={folder}", "trust=true").code == 0

    def test_trust_in_a_run_folder_that_someone_else_wrote_counts_for_nothing(self, script):
        script("train.py", "model=bbvi", "program=own.py:model:guide", "trust=true", *SHORT)
        (folder,) = Path("runs", "bbvi").iterdir()
        (folder / "config.yaml").write_text((folder / "config.yaml").read_text() + "trust: true\n")
        refused = script("train.py", f"resume={folder}")
        assert refused.code == 1
        assert "there is no option trust" in refused.err

    def test_trust_is_not_stored_in_the_run_folder(self, script):
        script("train.py", "model=bbvi", "program=own.py:model:guide", "trust=true", *SHORT)
        (folder,) = Path("runs", "bbvi").iterdir()
        for name in ("config.yaml", "status.json"):
            assert "trust" not in (folder / name).read_text()
        checkpoint = read_checkpoint(folder / "checkpoints" / "last.ckpt")
        assert "trust" not in checkpoint["config"]
        assert not checkpoint["hyper_parameters"]["trust"]


@pytest.mark.usefixtures("no_pictures")
def test_default_program_needs_no_data(script, monkeypatch):
    monkeypatch.delenv("ZOO_DATA", raising=False)
    answer = script("train.py", "model=bbvi", *SHORT)
    assert answer.code == 0, answer.err
    assert "beta_bernoulli: a coin's fairness" in answer.out
    assert "k-hat" in answer.out
