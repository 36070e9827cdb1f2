"""Baselines of sites."""

import pytest
import torch
from torch import nn

from zoo.gradients import ConstantBaseline, LeaveOneOutBaseline, MovingAverageBaseline, SumBaseline
from zoo.gradients.control_variates import ControlVariate
from zoo.inference.elbo._baselines import SiteBaseline, make_site_baseline

NET = nn.Linear(1, 1)


@pytest.mark.parametrize(
    ("given", "particles", "kind"),
    [
        (None, 1, MovingAverageBaseline),
        (None, 2, LeaveOneOutBaseline),
        ("moving_average", 4, MovingAverageBaseline),
        ("leave_one_out", 4, LeaveOneOutBaseline),
        ("optimal", 2, ControlVariate),
        (1.5, 1, ConstantBaseline),
        (ControlVariate(num_extra_samples=10), 1, ControlVariate),
    ],
)
def test_baseline_is_created_from_name_number_or_none(given, particles, kind):
    assert type(make_site_baseline(given, particles)) is kind


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"use_decaying_avg_baseline": True}, MovingAverageBaseline),
        ({"use_decaying_avg_baseline": False}, LeaveOneOutBaseline),
        ({"use_decaying_avg_baseline": False, "baseline_beta": 0.5}, LeaveOneOutBaseline),
        ({"nn_baseline": None, "nn_baseline_input": torch.ones(1)}, LeaveOneOutBaseline),
        ({"baseline_value": None}, LeaveOneOutBaseline),
        ({"nn_baseline": NET}, SiteBaseline),
        ({"nn_baseline": torch.sum}, SiteBaseline),
        ({"baseline_value": torch.ones(1)}, SiteBaseline),
        ({"baseline_value": torch.ones(1), "nn_baseline": None}, SiteBaseline),
        ({"nn_baseline": NET, "use_decaying_avg_baseline": True}, SumBaseline),
    ],
)
def test_default_baseline_is_specified_by_the_site(options, kind):
    assert type(make_site_baseline(None, 2, options)) is kind


def test_decay_is_specified_by_the_site():
    baseline = make_site_baseline(None, 1, {"use_decaying_avg_baseline": True, "baseline_beta": 0.5})
    assert baseline.mean.decay == 0.5


@pytest.mark.parametrize(
    ("given", "options", "sentence"),
    [
        (LeaveOneOutBaseline(1), {}, r"the first dimension: use LeaveOneOutBaseline\(dim=0\), got dim=1"),
        (ControlVariate(dim=-1), {}, r"use ControlVariate\(dim=0\)"),
        (SumBaseline(MovingAverageBaseline(), ControlVariate()), {}, "cannot be added to other baselines"),
        (float("nan"), {}, "there is no baseline 'nan'"),
        (None, {"baseline_beta": 0.5}, "'baseline_beta', which has no effect without 'use_decaying_avg_baseline'"),
        (None, {"nn_baseline_input": 1.0}, "'nn_baseline_input', which has no effect without 'nn_baseline'"),
        (None, True, r"infer\['baseline'\] must be a dictionary of use_decaying_avg_baseline"),
        (None, {"value": 1.0}, "has no option 'value'; there are use_decaying_avg_baseline"),
        (None, {"baseline_value": 1.0, "nn_baseline": NET}, "both 'nn_baseline' and 'baseline_value'"),
        (None, {"nn_baseline": 3}, "nn_baseline must be a module, or a function of nn_baseline_input, got 3"),
        ("learned", {"nn_baseline": 3}, "a learned baseline needs a network"),
        ("best", {}, "there is no baseline 'best'"),
        ("optimal", {}, "needs at least 2 particles"),
    ],
)
def test_invalid_options_raise(given, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_site_baseline(given, 1, options)
