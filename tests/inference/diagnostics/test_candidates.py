"""Estimators that are compared."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceGraph_ELBO
from torch import nn

from zoo.inference.diagnostics import BASIC, CONTROL_VARIATE, default_estimators, variance_report
from zoo.inference.elbo import BlackBoxELBO

pytestmark = pytest.mark.filterwarnings("ignore:site .* stands outside every plate")


def one_bit():
    pyro.sample("z", dist.Bernoulli(torch.tensor(0.3)))


def guide(**more):
    def run():
        pyro.sample("z", dist.Bernoulli(logits=pyro.param("logit", torch.tensor(0.1))), infer={"baseline": more})

    return run


def test_the_usual_ones_are_the_papers_and_one_for_each_baseline():
    assert list(default_estimators(2)) == [BASIC, "Rao-Blackwell", CONTROL_VARIATE, "moving_average", "leave_one_out"]
    assert list(default_estimators(1)) == [BASIC, "Rao-Blackwell", "moving_average"]
    assert all(elbo.num_particles == 2 for elbo in default_estimators(2).values())


def test_networks_of_the_guide_are_among_them():
    informed = guide(nn_baseline=nn.Linear(1, 1), nn_baseline_input=torch.ones(1))
    found = variance_report(one_bit, informed, num_samples=20, num_particles=2)
    assert found.row("learned").variance.value > 0
    with pytest.raises(KeyError):
        variance_report(one_bit, guide(), num_samples=20, num_particles=2).row("learned")


class Secretive(dist.Bernoulli):
    """Keeps what it is computed from to itself."""

    def __init__(self, logits):
        self.hidden = [lambda: logits]
        super().__init__(logits=logits.detach())

    def log_prob(self, value):
        return dist.Bernoulli(logits=self.hidden[0]()).log_prob(value)

    def expand(self, batch_shape, _instance=None):
        return self


class TestThoseThatDoNotGoWithTheProgram:
    def test_are_left_out_with_a_reason(self):
        def secretive():
            pyro.sample("z", Secretive(pyro.param("logit", torch.tensor(0.1))))

        found = variance_report(one_bit, secretive, num_samples=20)
        assert list(found.skipped) == [CONTROL_VARIATE]
        assert f"skipped: {CONTROL_VARIATE}: site 'z'" in str(found)

    def test_are_left_out_if_they_have_no_loss_to_differentiate(self):
        pair = {"ours": BlackBoxELBO(2), "theirs": TraceGraph_ELBO(2)}
        found = variance_report(one_bit, guide(), num_samples=20, num_particles=2, estimators=pair)
        assert found.skipped == {
            "theirs": "TraceGraph_ELBO has no differentiable_loss, so its gradient cannot be measured"
        }

    def test_blame_the_program_if_the_first_fails(self):
        def another():
            pyro.sample("y", dist.Bernoulli(logits=pyro.param("logit", torch.tensor(0.1))))

        with pytest.raises(ValueError, match=r"^the guide samples site 'y', which the model has not"):
            variance_report(one_bit, another, num_samples=20)

    def test_are_refused_if_they_would_see_other_particles(self):
        with pytest.raises(ValueError, match=r"^estimator 'more' has 3 particles, .* set num_particles=3"):
            variance_report(
                one_bit,
                guide(),
                num_samples=20,
                num_particles=2,
                estimators={"as many": Trace_ELBO(2), "more": Trace_ELBO(3)},
            )
