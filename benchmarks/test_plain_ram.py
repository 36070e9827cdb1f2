from unittest.mock import patch

import pytest
import torch
from training import our_step, plain_step


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.fixture(autouse=True)
def without_probe(monkeypatch):
    """Leave out the loss of the probe, which the plain model does not have; it trains the probe only."""

    def sum_without_probe(terms, step):
        return sum(value for name, value in terms.items() if name != "probe")

    monkeypatch.setattr("zoo.attention.ram.module.sum_losses", sum_without_probe)


def test_both_models_have_the_same_number_of_parameters(model, plain):
    assert parameters(plain) == parameters(model) - parameters(model.network.probe)


def test_both_models_have_the_same_loss_in_every_step(model, plain, batch):
    ours, theirs = our_step(model, batch), plain_step(plain, batch, like=model)
    for _ in range(4):
        with patch.object(model.network, "sample_trajectory", wraps=model.network.sample_trajectory) as sample:
            loss = ours()
        _, first, noise, _ = sample.call_args.args
        with patch("torch.rand", return_value=(first[0] + 1) / 2), patch("torch.randn", side_effect=list(noise[:, 0])):
            torch.testing.assert_close(theirs(), loss, rtol=0, atol=1e-5)


def test_losses_differ_with_other_noise(model, plain, batch):
    torch.manual_seed(0)
    ours, theirs = our_step(model, batch), plain_step(plain, batch, like=model)
    assert abs(ours() - theirs()) > 1e-4
