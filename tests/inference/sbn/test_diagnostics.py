"""What is logged of the learning signals."""

import pytest
import torch

from zoo.gradients import Constant, Reinforce
from zoo.inference.sbn.diagnostics import diagnostics
from zoo.inference.sbn.objective import BoundObjective

NOTHING = torch.tensor(0.0)


def test_each_layer_has_its_variance_and_its_baseline_beside_the_bound():
    signals = (torch.tensor([[1.0, 5.0]]), torch.tensor([[-2.0, 4.0]]))
    layers = Reinforce(maximize=True), Reinforce(Constant(0.5), maximize=True)
    outs = [layer(torch.zeros(1, 2), signal) for layer, signal in zip(layers, signals, strict=True)]
    figures = diagnostics(BoundObjective(NOTHING, NOTHING, NOTHING, torch.tensor([-90.0, -110.0]), outs))
    assert {name: figure.item() for name, figure in figures.items()} == pytest.approx(
        {
            "train_negative_bound": 100,
            "advantage_variance_1": 4,
            "baseline_mean_1": 0,
            "advantage_variance_2": 9,
            "baseline_mean_2": 0.5,
        }
    )
