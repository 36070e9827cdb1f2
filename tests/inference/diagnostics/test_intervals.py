import math

import pytest
import torch

from zoo.inference.diagnostics.intervals import Estimated, estimated


def variances(sd, batches=10, size=20):
    return (sd * torch.randn(batches, size)).var(1)


def coverage(interval, exact):
    found = [interval() for _ in range(400)]
    return sum(each.low < exact < each.high for each in found) / 400


def test_a_figure_is_the_mean_of_its_batches():
    assert estimated(torch.tensor([1.0, 3.0])).value == 2


def test_a_ratio_is_that_of_the_means():
    assert estimated(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 7.0])).value == 0.5


def test_the_interval_of_a_variance_holds_it_as_often_as_it_says():
    assert coverage(lambda: estimated(variances(3.0)), 9.0) == pytest.approx(0.95, abs=0.05)


def test_so_does_that_of_a_ratio():
    assert coverage(lambda: estimated(variances(3.0), variances(1.0)), 9.0) == pytest.approx(0.95, abs=0.05)


def test_it_does_not_hold_another_variance():
    assert coverage(lambda: estimated(variances(3.0)), 16.0) < 0.2


def test_the_ratio_of_what_rises_and_falls_together_is_known_well():
    shared = variances(1.0)
    together, apart = estimated(4 * shared, shared), estimated(4 * shared, variances(1.0))
    assert together.low == pytest.approx(together.high)
    assert apart.high / apart.low > 1.2


def test_what_does_not_vary_has_no_width():
    assert estimated(torch.zeros(5)) == Estimated(0, 0, 0)
    assert math.isnan(estimated(torch.zeros(5), torch.zeros(5)).value)
