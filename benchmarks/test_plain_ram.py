from unittest.mock import patch

import torch
from training import our_step, plain_step


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def test_both_have_the_same_parameters(model, plain):
    assert parameters(plain) == parameters(model)


def test_both_give_the_same_losses_step_by_step(model, plain, batch):
    ours, theirs = our_step(model, batch), plain_step(plain, batch, like=model)
    for _ in range(4):
        with patch.object(model.network, "rollout", wraps=model.network.rollout) as rollout:
            loss = ours()
        _, first, noise, _ = rollout.call_args.args
        with patch("torch.rand", return_value=(first[0] + 1) / 2), patch("torch.randn", side_effect=list(noise[:, 0])):
            torch.testing.assert_close(theirs(), loss, rtol=0, atol=1e-5)


def test_other_noise_gives_another_loss(model, plain, batch):
    torch.manual_seed(0)
    ours, theirs = our_step(model, batch), plain_step(plain, batch, like=model)
    assert abs(ours() - theirs()) > 1e-4
