import itertools
import math
import time

import pytest
import torch

from examples.patients import FactorFamily, chain, nuts, sampler_benchmark
from examples.patients.sampler_benchmark import (
    METHODS,
    SamplerSettings,
    all_patients,
    second_half_log_density,
    select_test_patients,
    spaced_indices,
)

SMALL = FactorFamily(series=True, positive=False, factors=2, lab_sd=0.3)


@pytest.mark.parametrize(("method", "step"), list(zip(METHODS, (0.005, 0.01, 0.1), strict=True)))
def test_predictions_of_each_method_improve_over_time(split, method, step, without_type_checks, monkeypatch):
    """By a clock that goes on by so much whenever it is read, which is once a step."""
    clock = itertools.count()
    for module in (sampler_benchmark, chain, nuts):
        monkeypatch.setattr(module, "perf_counter", lambda: step * next(clock))
    monkeypatch.setattr(sampler_benchmark, "SAMPLER_SETTINGS", SamplerSettings(gibbs_thin=1))
    curve = METHODS[method](SMALL, split, 1.0, 1)
    assert curve.per_lab[-1] > curve.per_lab[0]
    assert len(curve.seconds) == len(curve.per_lab) > 2
    assert curve.seconds == sorted(curve.seconds)
    assert 1.0 <= curve.seconds[-1] < 2.5
    assert (curve.warm_up > 0) == (method != "black-box variational inference")


def test_all_methods_have_the_same_labs(split):
    labs = all_patients(split)
    assert labs.values.shape[0] == 30
    assert torch.equal(labs.observed[20:], split.shown.observed)
    assert not (labs.observed[20:] & split.held_out.observed).any()


def test_predictions_use_the_states_of_the_test_patients(split):
    states = torch.arange(30.0)[:, None, None]
    assert select_test_patients(
        split, sampler_benchmark.Factors(states, states, states)
    ).states.flatten().tolist() == list(range(20, 30))


def test_time_of_evaluations_is_not_counted(split, without_type_checks, monkeypatch):
    looks, predict = [], sampler_benchmark.predictive_log_likelihood

    def slow(*args):
        looks.append(time.sleep(0.1))
        return predict(*args)

    monkeypatch.setattr(sampler_benchmark, "predictive_log_likelihood", slow)
    began = time.perf_counter()
    curve = sampler_benchmark.run_vi(SMALL, split, 0.2, 1)
    assert len(looks) == len(curve.seconds) >= 3
    assert time.perf_counter() - began > curve.seconds[-1] + 0.1 * len(looks) - 0.01


def test_early_samples_are_dropped_and_the_density_is_averaged_before_the_logarithm():
    draws = torch.tensor([[-500.0], [-500.0], [math.log(0.2)], [math.log(0.6)]])
    assert second_half_log_density(draws).item() == pytest.approx(math.log(0.4))
    assert second_half_log_density(draws[:1]).item() == -500.0


def test_evaluations_are_evenly_spaced_on_a_logarithmic_axis_and_include_the_last_state():
    chosen = spaced_indices([float(second) for second in range(1, 1001)])
    assert chosen[0] == 0
    assert chosen[-1] == 999
    assert 25 < len(chosen) < 45
