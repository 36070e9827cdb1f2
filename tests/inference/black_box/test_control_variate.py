"""Parameters of a site's distribution, their scores, and the control variate made of these."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.testing.fakes import NonreparameterizedGamma, NonreparameterizedNormal

from zoo.gradients import Reinforce
from zoo.gradients.optimal_scaling import OptimalScaling, optimal_scaling
from zoo.inference.black_box.control_variate import like_parameters, optimal_output, parameters_of, parameters_of_all
from zoo.inference.black_box.signals import Score, scores
from zoo.inference.programs.factors import NonreparameterizedLogNormal


def leaf(*values):
    return torch.tensor(values).requires_grad_()


def site(recorded, distribution):
    def program():
        pyro.sample("z", distribution)

    return recorded(program, program).guide["z"]


class TestParametersOfASite:
    def test_of_a_normal_have_the_scores_of_a_textbook(self, recorded):
        loc, scale = leaf(0.5, -1.0), leaf(2.0, 0.3)
        found = site(recorded, NonreparameterizedNormal(loc, scale))
        centred = (found.value - loc) / scale
        value, score = parameters_of(found)
        assert torch.equal(value, torch.stack([loc, scale], -1))
        torch.testing.assert_close(score, torch.stack([centred / scale, (centred**2 - 1) / scale], -1))

    def test_of_a_vector_of_bits_belong_to_one_element(self, recorded):
        logits = torch.randn(2, 3).requires_grad_()
        found = site(recorded, dist.Bernoulli(logits=logits).to_event(1))
        value, score = parameters_of(found)
        assert value.shape == (2, 3)
        torch.testing.assert_close(score, found.value - logits.sigmoid())

    @pytest.mark.parametrize(
        "make",
        [NonreparameterizedLogNormal, lambda loc, scale: dist.LogNormal(loc, scale).has_rsample_(False)],
        ids=["by its class", "by a switch"],
    )
    def test_of_a_lognormal_have_the_scores_of_a_normals_at_the_logarithm(self, make, recorded):
        loc, scale = leaf(0.5, -1.0), leaf(2.0, 0.3)
        found = site(recorded, make(loc, scale))
        centred = (found.value.log() - loc) / scale
        torch.testing.assert_close(parameters_of(found).score[:, 0], centred / scale)

    def test_that_have_no_gradient_are_left_out(self, recorded):
        value, _ = parameters_of(site(recorded, NonreparameterizedGamma(leaf(2.0, 3.0), torch.ones(2))))
        assert value.shape == (2, 1)

    def test_that_elements_share_are_refused(self, recorded):
        shared = dist.Bernoulli(logits=leaf(0.3)).expand([1, 4])
        assert parameters_of(site(recorded, shared)).value.shape == (1, 4, 1)  # as expanding gives each its own
        categorical = dist.Categorical(logits=torch.zeros(4, 3))
        with pytest.raises(ValueError, match=r"site 'z' \(Categorical\) does not show the parameters"):
            parameters_of(site(recorded, categorical))


class TestAllParticles:
    def found(self, recorded, present):
        logits = leaf(0.3, -0.5)

        def program(draws):
            pyro.sample("always", dist.Bernoulli(0.5))
            if draws:
                with pyro.plate("data", 2):
                    pyro.sample("z", dist.Bernoulli(logits=logits))

        return logits, scores([recorded(program, program, draws) for draws in present], at_once=False)["z"]

    def test_that_did_not_draw_a_site_have_zeros(self, recorded):
        logits, score = self.found(recorded, (True, False, True))
        value, gradient = parameters_of_all(score)
        assert value.shape == (3, 2, 1)
        assert (value[1] == 0).all()
        assert (gradient[1] == 0).all()
        assert torch.equal(value[2, :, 0], logits)

    @pytest.mark.parametrize("scaling", ["parameter", "factor"])
    def test_have_the_gradient_of_the_papers_formula(self, scaling, recorded):
        """``-mean of (f - a*) s``, with the scaling from the others."""
        logits, score = self.found(recorded, (True,) * 4)
        signal = torch.randn(4, 2)
        baseline = OptimalScaling(scaling)
        output = optimal_output(Reinforce(baseline, maximize=True), baseline, score._replace(signal=signal), 4)
        (found,) = torch.autograd.grad(output.loss.sum(), logits)
        gradient = parameters_of_all(score).score.squeeze(-1)
        a = optimal_scaling(gradient, signal, leave_one_out=True)
        torch.testing.assert_close(found, -((signal - a) * gradient).sum(0))

    def test_that_are_separate_only_make_the_scaling(self, recorded):
        logits, score = self.found(recorded, (True,) * 5)
        signal = torch.randn(5, 2)
        baseline = OptimalScaling(estimate=3)
        output = optimal_output(Reinforce(baseline, maximize=True), baseline, score._replace(signal=signal), 2)
        (found,) = torch.autograd.grad(output.loss.sum(), logits)
        gradient = parameters_of_all(score).score.squeeze(-1)
        a = optimal_scaling(gradient[2:], signal[2:])
        torch.testing.assert_close(found, -((signal[:2] - a) * gradient[:2]).sum(0))


def test_what_stands_for_a_plate_is_repeated_for_each_parameter():
    signal = torch.arange(4.0).reshape(4, 1)
    repeated = like_parameters(signal, torch.zeros(4, 3, 1, 2))
    assert repeated.shape == (4, 3, 1, 2)
    assert torch.equal(repeated[:, 2, 0, 1], signal[:, 0])
    assert Score(signal, signal, []).present is None
