import pytest
import torch
from torch import nn

from zoo.gradients import (
    BASELINES,
    Baseline,
    ConstantBaseline,
    LearnedBaseline,
    LeaveOneOutBaseline,
    MovingAverageBaseline,
    Reinforce,
    SumBaseline,
    make_baseline,
)


def linear():
    return nn.Linear(4, 1)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("none", Baseline),
        ("0.5", ConstantBaseline),
        ("moving_average", MovingAverageBaseline),
        ("leave_one_out", LeaveOneOutBaseline),
        ("learned", LearnedBaseline),
        ("learned_leave_one_out", SumBaseline),
        ("learned_moving_average", SumBaseline),
    ],
)
def test_make_baseline_returns_the_named_kind(name, kind):
    assert type(make_baseline(name, make_net=linear, sample_dim=1)) is kind


def test_learned_member_precedes_leave_one_out():
    baseline = make_baseline("learned_leave_one_out", make_net=linear, sample_dim=1)
    assert [type(member) for member in baseline.members] == [LearnedBaseline, LeaveOneOutBaseline]


def test_learned_member_follows_the_moving_average():
    baseline = make_baseline("learned_moving_average", make_net=linear, sample_dim=1, decay=0.5)
    assert [type(member) for member in baseline.members] == [MovingAverageBaseline, LearnedBaseline]
    assert baseline.members[0].mean.decay == 0.5


@pytest.mark.parametrize("name", BASELINES)
def test_every_named_baseline_works_in_reinforce(name):
    estimator = Reinforce(make_baseline(name, make_net=linear, sample_dim=1))
    log_prob = torch.zeros(2, 3, 5, requires_grad=True)
    out = estimator(log_prob, torch.ones(3, 5), context=torch.ones(2, 3, 5, 4))
    assert out.loss.shape == (2, 3, 5)


def test_arguments_reach_the_baseline():
    assert make_baseline("leave_one_out", make_net=linear, sample_dim=2).dim == 2
    assert make_baseline("moving_average", make_net=linear, sample_dim=2, decay=0.5).mean.decay == 0.5
    assert make_baseline("0.5", make_net=linear, sample_dim=2).value == 0.5
    net = linear()
    assert make_baseline("learned", make_net=lambda: net, sample_dim=2).net is net


def test_unknown_baseline_raises_with_the_known_names():
    with pytest.raises(ValueError, match=r"no baseline 'rloo'; choose one of none, moving_average, leave_one_out"):
        make_baseline("rloo", make_net=linear, sample_dim=1)
