import numpy as np
import pytest
import torch
from scipy import stats

from examples.patients import Prediction
from examples.patients.comparison import (
    PAPER_ORDER,
    Interval,
    conclusion,
    differences,
    mean_over_seeds,
    paired_difference,
    per_lab,
    reference,
)

NOISE = np.random.default_rng(0)
LABS = torch.tensor(NOISE.integers(3, 15, size=62))
HARD = torch.tensor(NOISE.normal(-3, 2, size=62)) * LABS  # some patients are hard to predict for every model


def worse_by(nats, seed=1):
    jitter = torch.tensor(np.random.default_rng(seed).normal(0, 0.1, size=62))
    return Prediction(HARD + (jitter - nats) * LABS, LABS)


def test_known_difference_of_two_models_is_found_with_its_sign():
    found = paired_difference(worse_by(0.0), worse_by(0.2, seed=2))
    assert found.low < 0.2 < found.high
    assert found.low > 0.1
    back = paired_difference(worse_by(0.2, seed=2), worse_by(0.0))
    assert back == pytest.approx((-found.estimate, -found.high, -found.low))
    assert (found.verdict, back.verdict) == ("confirmed", "refuted")


def test_difference_is_not_significant_without_pairing():
    labs = torch.full((62,), 5)
    one, other = Prediction(HARD, labs), Prediction(HARD - 1.0, labs)
    assert paired_difference(one, other).verdict == "confirmed"
    swapped = other._replace(log_likelihood=other.log_likelihood.flip(0))
    assert paired_difference(one, swapped).verdict == "undecided"
    assert paired_difference(one, swapped).estimate == pytest.approx(paired_difference(one, other).estimate)


def test_pairing_predictions_of_different_patients_raises():
    with pytest.raises(ValueError, match="only if they are of the same patients"):
        paired_difference(worse_by(0.0), Prediction(HARD, LABS.flip(0)))


def test_interval_has_its_nominal_coverage(monkeypatch):
    monkeypatch.setattr("examples.patients.comparison.RESAMPLES", 1000)
    covered = 0
    for seed in range(200):
        noise = np.random.default_rng(seed)
        labs = torch.tensor(noise.integers(1, 10, size=40))
        found = per_lab(Prediction(torch.tensor(noise.normal(-1, 1, size=40)) * labs, labs))
        covered += found.low < -1 < found.high
    assert 178 <= covered <= 199  # of 200; a binomial of 0.93 leaves this with a probability of about 0.02


def test_all_labs_have_equal_weight_whatever_the_patient():
    assert per_lab(Prediction(torch.tensor([-10.0, -2.0]), torch.tensor([10, 1]))).estimate == pytest.approx(-12 / 11)


def test_seeds_are_averaged_by_patient():
    one, other = (Prediction(torch.tensor(values), torch.ones(2)) for values in ([-1.0, -2.0], [-3.0, -8.0]))
    assert mean_over_seeds([one, other]).log_likelihood.tolist() == [-2.0, -5.0]


@pytest.mark.parametrize("logarithms", [False, True])
def test_reference_uses_only_mean_and_standard_deviation_of_each_lab(split, logarithms):
    found, expected = reference(split.train, split.held_out, logarithms), np.zeros(10)
    for kind in range(3):
        seen = split.train.values[..., kind][split.train.observed[..., kind]].double().numpy()
        if logarithms:
            density = stats.lognorm(np.log(seen).std(ddof=1), scale=np.exp(np.log(seen).mean()))
        else:
            density = stats.norm(seen.mean(), seen.std(ddof=1))
        values, here = split.held_out.values[..., kind].numpy(), split.held_out.observed[..., kind].numpy()
        expected += np.where(here, density.logpdf(values), 0).sum(1)
    np.testing.assert_allclose(found.log_likelihood, expected, rtol=1e-4, atol=1e-4)


def test_lab_observed_once_has_no_standard_deviation_and_raises(split):
    once = split.train.restrict_observed(
        split.train.observed & (split.train.observed.flatten().cumsum(0) == 1).view_as(split.train.observed)
    )
    with pytest.raises(ValueError, match="observed twice in training"):
        reference(once, split.held_out, logarithms=False)


def test_every_pair_of_models_is_compared_in_the_order_of_the_paper():
    found = differences({name: worse_by(0.3 * place, seed=place) for place, name in enumerate(reversed(PAPER_ORDER))})
    assert next(iter(found)) == ("gamma_normal_ts", "gamma_normal")
    assert len(found) == 6
    assert {interval.verdict for interval in found.values()} == {"refuted"}
    assert conclusion(found) == "the paper's ordering is refuted: of 6 pairs 0 confirm it and 6 refute it"


@pytest.mark.parametrize(("low", "verdict"), [(0.1, "confirmed"), (-0.1, "undecided")])
def test_paper_is_confirmed_only_if_every_pair_confirms_it(low, verdict):
    found = {("a", "b"): Interval(0.3, 0.1, 0.5), ("b", "c"): Interval(0.3, low, 0.5)}
    assert f"is {verdict}:" in conclusion(found)
