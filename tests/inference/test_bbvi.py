import pytest
import torch

from zoo.gradients import LeaveOneOutBaseline, MovingAverageBaseline
from zoo.inference import ProgramInference
from zoo.inference.programs import PROGRAMS, find_program

OWN = """
import pyro
import pyro.distributions as dist
import torch

def model():
    with pyro.plate("data", 2):
        z = pyro.sample("z", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor([-1.0, 2.0]))

def guide():
    with pyro.plate("data", 2):
        pyro.sample("z", dist.Bernoulli(logits=pyro.param("logits", torch.zeros(2))))

def wrong():
    with pyro.plate("data", 2):
        pyro.sample("z", dist.Bernoulli(logits=pyro.param("sd", torch.ones(2))))
        torch.ones(2) @ torch.ones(3)
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    return f"{tmp_path}/own.py:model"


@pytest.fixture
def checkpoint(tmp_path):
    def save(module):
        content = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
        torch.save({**content, "model": "ProgramInference", "config": {}}, tmp_path / "last.ckpt")
        return tmp_path / "last.ckpt"

    return save


class TestProgram:
    def test_builtin_program_is_found_by_name(self):
        assert find_program("eight_schools") is PROGRAMS["eight_schools"]

    def test_unknown_program_raises_with_nearest_name(self):
        with pytest.raises(
            ValueError, match=r"unknown program 'eight_scools'; choose one of .*Did you mean eight_schools\?"
        ):
            find_program("eight_scools")

    def test_program_in_file_is_vectorized_only_on_request(self, own):
        assert not ProgramInference(f"{own}:guide", trust=True).elbo.vectorize_particles
        assert ProgramInference(f"{own}:guide", trust=True, vectorize_particles=True).elbo.vectorize_particles
        assert ProgramInference("beta_bernoulli").elbo.vectorize_particles

    def test_failing_program_in_file_is_reported_with_line(self, own):
        with pytest.raises(ValueError, match=r"own\.py, line 18: RuntimeError: "):
            ProgramInference(f"{own}:wrong", trust=True)

    def test_missing_data_of_program_are_named(self, monkeypatch, tmp_path):
        monkeypatch.delenv("ZOO_DATA", raising=False)
        with pytest.raises(FileNotFoundError, match="but ZOO_DATA is not set"):
            ProgramInference("kidiq")
        monkeypatch.setenv("ZOO_DATA", str(tmp_path))
        with pytest.raises(FileNotFoundError, match=r"there is no .*data\.json; set ZOO_DATA to the parent folder"):
            ProgramInference("kidiq")


def make_elbo(num_particles, baseline=None, program="beta_bernoulli", **options):
    return ProgramInference(program, True, {"baseline": baseline, **options}, num_particles).elbo


class TestEstimator:
    def test_estimator_is_built_from_its_options(self):
        elbo = make_elbo(3, "moving_average", decay=0.5, scale=True)
        reinforce = elbo.estimators.of("z")
        assert isinstance(reinforce.baseline, MovingAverageBaseline)
        assert reinforce.baseline.mean.decay == elbo.scale.mean.decay == 0.5
        assert isinstance(make_elbo(3, "leave_one_out").estimators.of("z").baseline, LeaveOneOutBaseline)
        assert make_elbo(3, "leave_one_out").scale is None

    def test_vimco_selects_importance_weighted_bound(self):
        assert make_elbo(3, name="vimco").vimco is not None
        assert make_elbo(3, "leave_one_out").vimco is None

    def test_leave_one_out_needs_two_particles(self):
        with pytest.raises(ValueError, match="needs at least 2 particles: set num_particles=2 or more, got 1"):
            make_elbo(1, "leave_one_out")

    def test_decay_of_learned_moving_average_is_fixed(self, own):
        with pytest.raises(ValueError, match=r"a learned baseline has a fixed decay here: set estimator\.decay=0\.9"):
            make_elbo(2, "learned_moving_average", f"{own}:guide", decay=0.5)

    @pytest.mark.parametrize("baseline", ["learned", "learned_moving_average", "learned_leave_one_out"])
    def test_learned_baseline_of_builtin_program_raises(self, baseline):
        with pytest.raises(ValueError, match="the guide of beta_bernoulli does not have; choose another baseline"):
            ProgramInference("beta_bernoulli", estimator={"baseline": baseline})


class TestCheckpoint:
    def test_guide_is_restored_from_checkpoint(self, checkpoint):
        module = ProgramInference("beta_bernoulli", num_particles=3)
        module.guide.fairness.log_alpha.data.fill_(1.25)
        loaded = ProgramInference.load(checkpoint(module))
        assert loaded.guide.fairness.log_alpha.item() == 1.25
        assert loaded.elbo.num_particles == 3

    def test_checkpoint_contains_all_options_as_plain_data(self, checkpoint):
        saved = torch.load(checkpoint(ProgramInference("beta_bernoulli")), weights_only=True)
        assert saved["hyper_parameters"] == {
            "program": "beta_bernoulli",
            "trust": False,
            "estimator": None,
            "num_particles": 10,
            "vectorize_particles": None,
            "optimizer": "adam",
            "lr": 0.05,
            "baseline_lr": None,
            "schedule": "cosine",
        }

    def test_checkpoint_of_program_in_file_needs_trust_again(self, own, checkpoint):
        module = ProgramInference(f"{own}:guide", trust=True)
        module.store.params["logits_unconstrained"].data += 1
        path = checkpoint(module)
        with pytest.raises(ValueError, match=r"runs the code in .*add trust=true if you trust it"):
            ProgramInference.load(path)
        loaded = ProgramInference.load(path, trust=True)
        assert loaded.store.params["logits_unconstrained"].tolist() == [1, 1]
