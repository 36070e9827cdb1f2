import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule

from zoo.inference._mean_field import (
    check_optimum_available,
    compare_to_optimum,
    fit_pathwise_guide,
    guide_distributions,
    mean_field_optimum,
    pathwise_guide,
    sample_guide,
)
from zoo.inference.programs import PROGRAMS
from zoo.inference.programs._factors import BernoulliFactor, NormalFactor
from zoo.inference.programs._program import Program
from zoo.inference.programs._regression import normal_optimum

PRECISION = torch.tensor([[4.0, 1.2, 0.0], [1.2, 1.0, -0.3], [0.0, -0.3, 2.0]], dtype=torch.float64)
BEST = {"x": dist.Normal(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0])), "s": dist.LogNormal(0.0, 0.5)}
MEAN = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def model():
    with pyro.plate("d", 3):
        x = pyro.sample("x", dist.ImproperUniform(dist.constraints.real, (), ()))
    residual = x - MEAN
    pyro.factor("density", -(residual @ PRECISION * residual).sum(-1, keepdim=True) / 2)


class Guide(PyroModule):
    def __init__(self):
        super().__init__()
        self.x = NormalFactor(torch.zeros(3, dtype=torch.float64), 0.3)

    def forward(self):
        with pyro.plate("d", 3):
            pyro.sample("x", self.x())


def test_the_pathwise_run_finds_the_optimum_of_the_family_not_the_posterior():
    guide, state, store = Guide(), torch.get_rng_state(), dict(pyro.get_param_store().items())
    before = guide.x.shift.detach().clone()
    fitted = fit_pathwise_guide(model, guide, (), num_steps=300, num_particles=32)
    mean, sd = normal_optimum(MEAN, PRECISION)
    found = fitted.x()
    assert found.mean.tolist() == pytest.approx(mean.tolist(), abs=0.05)
    assert found.stddev.tolist() == pytest.approx(sd.tolist(), rel=0.05)
    assert found.has_rsample
    assert not guide.x().has_rsample
    assert torch.equal(guide.x.shift, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert dict(pyro.get_param_store().items()) == store


def test_guide_without_pathwise_version_raises():
    discrete = Guide()
    discrete.z = BernoulliFactor(torch.zeros(2))
    for guide in (discrete, torch.nn.Linear(1, 1)):
        with pytest.raises(ValueError, match="only a guide of continuous factors"):
            pathwise_guide(guide)
    with pytest.raises(ValueError, match="num_steps and num_particles must be at least 1, got 0 and 4"):
        fit_pathwise_guide(model, Guide(), (), num_steps=0, num_particles=4)


def test_closed_form_optimum_is_preferred_to_pathwise_fit(monkeypatch):
    known = {"x": dist.Normal(0.0, 1.0)}
    described = Program("normal", model, Guide, lambda root: ())
    assert mean_field_optimum(described._replace(optimum=lambda: known), ()) == known
    monkeypatch.setattr("zoo.inference._mean_field.fit_pathwise_guide", lambda model, guide, data: guide)
    found = mean_field_optimum(described, ())
    assert found["x"].mean.tolist() == [0, 0, 0]


def test_guide_distributions_are_those_of_sites_without_plates():
    found = guide_distributions(Guide(), ())
    assert list(found) == ["x"]
    assert found["x"].stddev.tolist() == pytest.approx([0.3] * 3)


class TestDistance:
    def test_distance_of_optimum_to_itself_is_zero(self):
        assert compare_to_optimum(BEST, BEST) == {
            "optimum_mean_gap": 0,
            "optimum_sd_ratio_low": 1,
            "optimum_sd_ratio_high": 1,
        }

    def test_distance_is_that_of_the_worst_element(self):
        shifted = {**BEST, "x": dist.Normal(torch.tensor([0.0, 1.4]), torch.tensor([1.2, 1.8]))}
        found = compare_to_optimum(BEST, shifted)
        assert found["optimum_mean_gap"] == pytest.approx(0.2)
        assert found["optimum_sd_ratio_low"] == pytest.approx(0.9)
        assert found["optimum_sd_ratio_high"] == pytest.approx(1.2)

    def test_distance_between_different_sites_raises(self):
        with pytest.raises(ValueError, match=r"^the optimum has the sites x, s, the guide x$"):
            compare_to_optimum(BEST, {"x": BEST["x"]})


def test_the_coin_has_a_known_optimum_and_bits_have_none():
    coin = PROGRAMS["beta_bernoulli"]
    assert mean_field_optimum(coin, coin.load(None))["fairness"].mean == pytest.approx(16 / 30)

    def bits():
        return torch.nn.Sequential(BernoulliFactor(torch.zeros(2)))

    with pytest.raises(ValueError, match="the optimum of program=bits cannot be computed: only a guide of"):
        check_optimum_available("bits", Program("bits", model, bits, lambda root: ()), ())


def test_sample_guide_depends_on_seed_only():
    guide = Guide()
    one, again, other = (sample_guide(guide, (), 5, seed)["x"] for seed in (0, 0, 1))
    assert one.shape == (5, 3)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
