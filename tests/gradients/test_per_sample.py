"""Mean, m2 and m3 of deviations that are taken in group by group."""

import math

import pytest
import torch

from zoo.gradients import RunningMoments

VECTORS = torch.randn(12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).exp()
WEIGHTS = torch.rand(12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("sizes", [[12], [1] * 12, [5, 7], [1, 10, 1]])
def test_is_the_same_whatever_the_groups(sizes):
    moments = RunningMoments()
    for vectors, weights in zip(VECTORS.split(sizes), WEIGHTS.split(sizes), strict=True):
        moments.update(vectors, weights)
    mean = WEIGHTS @ VECTORS / WEIGHTS.sum()
    for found, power in ((moments.m2, 2), (moments.m3, 3)):
        torch.testing.assert_close(found, WEIGHTS @ (VECTORS - mean) ** power, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(moments.mean, mean, rtol=1e-12, atol=0)


def test_has_the_skewness_of_the_mean_and_none_where_nothing_varies():
    """A draw that is 1 with frequency p has skewness (1 - 2p) / sqrt(p (1 - p)); the mean of n, that over sqrt(n)."""
    moments = RunningMoments()
    for value in [1.0] + [0.0] * 9:
        moments.update(torch.tensor([[value, 2.5]], dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    assert moments.skewness[0].item() == pytest.approx(0.8 / math.sqrt(0.09 * 10), rel=1e-12)
    assert moments.skewness[1] == 0
    assert moments.m2[1] == 0
