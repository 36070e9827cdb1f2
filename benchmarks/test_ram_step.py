import torch
import torch.nn.functional as F
from training import medians, our_step, plain_step

from zoo.attention import GlimpseSensor

MIN_SPEEDUP = 3.5
MAX_SHARE = 0.05
MIN_POOLING_SPEEDUP = 4.0


def test_training_step_is_faster_than_that_of_the_plain_model(model, plain, batch, measured):
    ours, theirs = medians(200, our_step(model, batch), plain_step(plain, batch, like=model))
    measured("a plain training step of RAM, in units of ours", theirs / ours)
    assert theirs / ours >= MIN_SPEEDUP


def test_estimator_is_a_small_share_of_a_training_step(model, batch, measured):
    log_prob = torch.randn(5, 1, 128, requires_grad=True)
    reward, states = torch.ones(1, 128), torch.rand(5, 1, 128, 256)

    def estimate():
        out = model.reinforce(log_prob, reward, context=states)
        (out.loss.sum(0).mean() + out.baseline_loss).backward()

    step, estimator = medians(300, our_step(model, batch), estimate)
    measured("Reinforce, forward and backward, as a share of a training step of RAM", estimator / step)
    assert estimator / step <= MAX_SHARE


def test_patches_of_four_scales_are_faster_than_by_avg_pool2d(measured):
    sensor, images = GlimpseSensor((1, 100, 100), patch_size=12, num_scales=4), torch.rand(8, 1, 100, 100)

    def by_avg_pool2d():
        vertical, horizontal = sensor.padding
        padded = F.pad(images, (horizontal, horizontal, vertical, vertical))
        return [padded] + [F.avg_pool2d(padded, 2**k, stride=1) for k in range(1, 4)]

    ours, theirs = medians(30, lambda: sensor.patches(images), by_avg_pool2d)
    measured("patches of four scales by avg_pool2d, in units of ours", theirs / ours)
    assert theirs / ours >= MIN_POOLING_SPEEDUP
