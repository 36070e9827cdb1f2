"""The paper's control variate, computed from the scores of a site's parameters."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from zoo.gradients import Reinforce
from zoo.gradients.control_variates import ControlVariate, optimal_scaling
from zoo.inference.elbo._control_variate import (
    control_variate_output,
    expand_to_parameters,
    reshape_to_plates,
    stacked_parameters,
)
from zoo.inference.elbo._downstream_costs import ScoreFunctionTerm, score_function_terms


class TestEstimate:
    def found(self, run_once, present):
        logits = torch.tensor([0.3, -0.5]).requires_grad_()

        def program(draws):
            pyro.sample("always", dist.Bernoulli(0.5))
            if draws:
                with pyro.plate("data", 2):
                    pyro.sample("z", dist.Bernoulli(logits=logits))

        return logits, score_function_terms([run_once(program, program, draws) for draws in present], vectorized=False)[
            "z"
        ]

    @pytest.mark.parametrize("scaling", ["parameter", "factor"])
    def test_estimate_equals_the_formula_of_the_paper(self, scaling, run_once):
        """``-mean of (f - a*) s``, with the scaling from the others."""
        logits, score = self.found(run_once, (True,) * 4)
        signal = torch.randn(4, 2)
        baseline = ControlVariate(scaling)
        output = control_variate_output(Reinforce(baseline, maximize=True), baseline, score._replace(signal=signal), 4)
        (found,) = torch.autograd.grad(output.loss.sum(), logits)
        gradient = stacked_parameters(score.sites).score.squeeze(-1)
        a = optimal_scaling(gradient, signal, leave_one_out=True)
        torch.testing.assert_close(found, -((signal - a) * gradient).sum(0))

    def test_extra_samples_are_used_for_the_scaling_only(self, run_once):
        logits, score = self.found(run_once, (True,) * 5)
        signal = torch.randn(5, 2)
        baseline = ControlVariate(num_extra_samples=3)
        output = control_variate_output(Reinforce(baseline, maximize=True), baseline, score._replace(signal=signal), 2)
        (found,) = torch.autograd.grad(output.loss.sum(), logits)
        gradient = stacked_parameters(score.sites).score.squeeze(-1)
        a = optimal_scaling(gradient[2:], signal[2:])
        torch.testing.assert_close(found, -((signal[:2] - a) * gradient[:2]).sum(0))


@pytest.mark.parametrize(
    ("batch", "plates", "expected"),
    [((), (), [[0], [1]]), ((2,), (2,), [[[0], [1]], [[2], [3]]]), ((2,), (), [[0, 1], [2, 3]])],
    ids=["one element", "a plate", "a batch"],
)
def test_factor_includes_parameters_of_batch_dimensions_without_plate(batch, plates, expected):
    size = torch.Size((2, *batch, 1))
    found = reshape_to_plates(torch.arange(size.numel()).reshape(size), torch.Size((2, *plates)))
    assert found.tolist() == expected


def test_factor_includes_batch_dimensions_beside_a_plate():
    gradient = torch.arange(12).reshape(1, 2, 3, 2)
    assert reshape_to_plates(gradient, torch.Size((1, 3))).tolist() == [[[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]]
    assert reshape_to_plates(gradient, torch.Size((1, 2, 1))).tolist() == [
        [[[0, 1, 2, 3, 4, 5]], [[6, 7, 8, 9, 10, 11]]]
    ]


def test_plates_are_expanded_to_parameters():
    signal = torch.arange(4.0).reshape(4, 1)
    repeated = expand_to_parameters(signal, torch.zeros(4, 3, 1, 2))
    assert repeated.shape == (4, 3, 1, 2)
    assert torch.equal(repeated[:, 2, 0, 1], signal[:, 0])
    assert ScoreFunctionTerm(signal, signal, []).mask is None
