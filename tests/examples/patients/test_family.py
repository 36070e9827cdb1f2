import pytest
import torch

from examples.patients import FactorFamily, gamma_e


def test_gamma_e_has_its_mean_and_standard_deviation():
    mean = torch.tensor([0.5, 3.0, 20.0])
    assert torch.allclose(gamma_e(mean, 0.7).mean, mean)
    assert torch.allclose(gamma_e(mean, 0.7).stddev, torch.full((3,), 0.7))


def test_gamma_e_clips_the_mean_at_a_tenth_of_the_sd():
    low = gamma_e(torch.tensor([0.0, -3.0, 1e-30, 0.05]), 0.5)
    assert torch.allclose(low.mean, torch.full((4,), 0.05))
    assert low.log_prob(torch.tensor(1e-30)).isfinite().all()


def test_four_families_have_the_names_of_the_paper():
    names = {FactorFamily(series, positive).name for series in (False, True) for positive in (False, True)}
    assert names == {"gamma_normal", "gamma_normal_ts", "gamma_gamma", "gamma_gamma_ts"}


@pytest.mark.parametrize("bad", [{"factors": 0}, {"lab_sd": 0.0}, {"start_mean": -1.0}])
def test_scales_must_be_positive(bad):
    with pytest.raises(ValueError, match="must be positive"):
        FactorFamily(True, True, **bad)
