import torch
from training import medians, our_step, plain_step

SPEEDUP = 3.5
SHARE = 0.05


def test_training_step_is_faster_than_the_plain_models(model, plain, batch, measured):
    ours, theirs = medians(200, our_step(model, batch), plain_step(plain, batch, like=model))
    measured("a plain training step of RAM, in units of ours", theirs / ours)
    assert theirs / ours >= SPEEDUP


def test_estimator_is_a_small_share_of_a_training_step(model, batch, measured):
    log_prob = torch.randn(5, 1, 128, requires_grad=True)
    reward, states = torch.ones(1, 128), torch.rand(5, 1, 128, 256)

    def estimate():
        out = model.reinforce(log_prob, reward, context=states)
        (out.loss.sum(0).mean() + out.baseline_loss).backward()

    step, estimator = medians(300, our_step(model, batch), estimate)
    measured("Reinforce, forward and backward, as a share of a training step of RAM", estimator / step)
    assert estimator / step <= SHARE
