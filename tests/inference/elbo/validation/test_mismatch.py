"""Log-probabilities of one particle in a vectorized and in a single run."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from zoo.inference.elbo._tracing import ModelGuideCall, trace_model_and_guide, trace_vectorized
from zoo.inference.elbo._validation.vectorization import (
    find_mismatch,
    is_close,
    is_deterministic,
    mismatches,
    sum_log_probs,
)


def guide():
    with pyro.plate("data", 3):
        pyro.sample("z", dist.Bernoulli(torch.tensor([0.2, 0.5, 0.9])))


def model_of(mean):
    def model():
        with pyro.plate("data", 3):
            z = pyro.sample("z", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(mean(z), 1.0), obs=torch.ones(1))

    return model


kept, summed = model_of(lambda z: z.sum(-1, keepdim=True)), model_of(lambda z: 9 + z.sum().expand(1))


def compared(model):
    call = ModelGuideCall(model, guide)
    return find_mismatch(trace_vectorized(call, 5, 1, {}), trace_model_and_guide(call, {}), 5, call, {})


def test_log_probabilities_are_summed_for_each_particle():
    run = trace_vectorized(ModelGuideCall(kept, guide), 5, 1, {})
    expected = dist.Bernoulli(torch.tensor([0.2, 0.5, 0.9])).log_prob(run.guide["z"].value).sum(-1)
    torch.testing.assert_close(sum_log_probs(run.guide, 5), expected)


def test_independent_particles_have_no_mismatch():
    assert compared(kept) is None


def test_mismatch_names_the_site():
    torch.manual_seed(0)
    found = compared(summed)
    assert found.term == "log p of site 'x'"
    assert found.relative_error > 0.01
    assert str(found).startswith("log p of site 'x' is -")


@pytest.mark.parametrize(("size", "same"), [(1e6, True), (10.0, False)])
def test_tolerance_grows_with_the_terms(size, same):
    assert is_close(3.0, 3.05, size) is same


@pytest.mark.parametrize(
    ("x", "y", "same"),
    [(-math.inf, -math.inf, True), (math.nan, math.nan, True), (-math.inf, 0.0, False), (math.nan, 0.0, False)],
)
def test_nonfinite_values_are_close_only_to_themselves(x, y, same):
    assert is_close(x, y, math.inf) is same


def test_program_with_its_own_noise_is_not_deterministic():
    noisy = model_of(lambda z: torch.randn(1))
    for program, determined in ((kept, True), (noisy, False)):
        call = ModelGuideCall(program, guide)
        assert is_deterministic(trace_model_and_guide(call, {}), call, {}) is determined


def test_run_has_no_mismatch_with_itself():
    run = trace_model_and_guide(ModelGuideCall(kept, guide), {})
    assert list(mismatches(run, run)) == []
