import numpy as np
import pytest
import torch
from scipy import stats

from examples.patients import FactorFamily, Factors, gibbs_blocks, initial_state, simulate
from examples.patients.chain import run_chain
from examples.patients.gibbs import metropolis_within_gibbs

SURE = 1e-6


def expected_labs(factors):
    return factors.states @ factors.weights.unsqueeze(-3) + factors.offsets[..., None, None, :]


def gamma_e(mean, sd):
    mean = np.maximum(mean, sd / 10)
    return stats.gamma(mean**2 / sd**2, scale=sd**2 / mean)


def test_simulated_variables_have_the_distributions_of_the_model(family):
    """Each variable, put through its own distribution function, is uniform."""
    labs, truth = simulate(family, patients=400, kinds=3, seed=0)
    states, mean = truth.states.numpy(), expected_labs(truth).numpy()
    uniforms = {
        "start": gamma_e(3.0, 1.0).cdf(states[:, 0]),
        "later": gamma_e(states[:, 0], 0.7).cdf(states[:, 1]) if family.series else gamma_e(3.0, 1.0).cdf(states[:, 1]),
        "labs": (gamma_e(mean, 0.3) if family.positive else stats.norm(mean, 0.3)).cdf(labs.values.numpy())[
            labs.observed.numpy()
        ],
    }
    for name, uniform in uniforms.items():
        assert stats.kstest(uniform.ravel(), "uniform").pvalue > SURE, name
    wrong = (gamma_e(mean, 0.4) if family.positive else stats.norm(mean, 0.4)).cdf(labs.values.numpy())
    assert stats.kstest(wrong[labs.observed.numpy()], "uniform").pvalue < SURE


def test_numbers_of_visits_and_missing_labs_match_the_arguments(family):
    labs, _ = simulate(family, patients=2000, kinds=2, seed=0, visits=4.0, share=0.3)
    lengths = labs.attended.sum(1).double()
    assert lengths.min() >= 1
    assert abs(lengths.mean() - 4) < 5 * (3 / 2000) ** 0.5
    share = labs.observed[labs.attended].double().mean()
    assert abs(share - 0.3) < 5 * (0.21 / labs.attended.sum() / 2) ** 0.5
    assert not labs.observed[~labs.attended].any()


def test_simulation_depends_on_its_seed_and_not_on_the_global_random_state(family):
    before = torch.get_rng_state()
    one, again, other = (simulate(family, 5, 2, seed)[0] for seed in (0, 0, 1))
    assert torch.equal(one.values, again.values)
    assert one.values.shape != other.values.shape or not torch.equal(one.values, other.values)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("bad", [{"patients": 0}, {"kinds": 0}, {"visits": 0.5}, {"share": 0.0}])
def test_numbers_out_of_range_raise(bad):
    with pytest.raises(ValueError, match="at least 1 patient, lab and mean visit and a share"):
        simulate(FactorFamily(True, True), **{"patients": 2, "kinds": 2, "seed": 0, **bad})


@pytest.mark.parametrize("series", [False, True])
def test_simulated_factors_are_recovered_with_the_right_number_of_factors(series):
    """The labs without their noise are found better than the labs themselves tell them.

    In the models that know no positive weights, a factor may be found with its sign turned.
    """
    family = FactorFamily(series, True, factors=1, start_sd=1.5, step_sd=0.5, lab_sd=0.3)
    labs, truth = simulate(family, patients=12, kinds=6, seed=3, visits=3.0, share=0.7)
    start = initial_state(family, labs, seed=0)._asdict()
    chain = run_chain(metropolis_within_gibbs(start, gibbs_blocks(family, labs), warm_up=100, seed=0), 400, thin=2)
    found = expected_labs(Factors(**{name: draws[75:] for name, draws in chain.draws.items()}))
    error = (found.mean(0) - expected_labs(truth))[labs.observed]
    rms = error.square().mean().sqrt()
    assert rms < 0.8 * family.lab_sd
    # The error is about as large as the posterior says it is.
    assert 0.6 < rms / found.var(0)[labs.observed].mean().sqrt() < 1.6
