"""Elements behind a false mask count for nothing, whatever stands there."""

import copy

import pytest
import torch

from zoo.gradients import Reinforce, RunningStd

SHAPE = (2, 3, 4)  # time, sample, input


@pytest.fixture(params=[None, RunningStd], ids=["unscaled", "scaled"])
def estimator(request, baseline):
    return Reinforce(baseline, scale=request.param and request.param()).double()


@pytest.fixture
def batch():
    """Signals are whole numbers, so that their sums are exact in whatever order they are taken."""
    generator = torch.Generator().manual_seed(0)
    return {
        "log_prob": torch.randn(SHAPE, dtype=torch.float64, generator=generator),
        "signal": torch.randint(-9, 10, SHAPE, generator=generator).double(),
        "context": torch.randn(*SHAPE, 3, dtype=torch.float64, generator=generator),
    }


@pytest.fixture
def mask():
    """Ragged; one input has a single valid sample at the last step, another has none."""
    mask = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1)) < 0.6
    mask[1, :, 0] = torch.tensor([True, False, False])
    mask[1, :, 1] = False
    return mask


def everything(estimator, log_prob, signal, context, mask=None):
    """All that one call gives and leaves behind; of the elements, the valid ones."""
    estimator = copy.deepcopy(estimator)
    log_prob = log_prob.clone().requires_grad_()
    out = estimator(log_prob, signal, context, mask)
    parameters = dict(estimator.named_parameters())
    policy = torch.autograd.grad(out.loss.sum(), log_prob)[0]
    fit = torch.autograd.grad(out.baseline_loss, parameters.values()) if parameters else ()
    valid = ... if mask is None else mask
    return {
        "loss": out.loss[valid].flatten(),
        "advantage": out.advantage[valid].flatten(),
        "baseline": out.baseline[valid].flatten(),
        "baseline loss": out.baseline_loss,
        "gradient of log_prob": policy[valid].flatten(),
        **{f"gradient of {name}": gradient for name, gradient in zip(parameters, fit, strict=True)},
        **estimator.state_dict(),
    }


def spoil(x, mask):
    """Put what is not a number wherever the mask is false."""
    garbage = torch.tensor([torch.nan, torch.inf, -torch.inf], dtype=x.dtype)
    valid = mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
    return torch.where(valid, x, garbage.repeat(x.numel())[: x.numel()].reshape(x.shape))


@pytest.mark.parametrize("where", [["signal"], ["log_prob"], ["context"], ["signal", "log_prob", "context"]])
def test_masked_values_have_no_effect(estimator, batch, mask, where):
    spoilt = batch | {name: spoil(batch[name], mask) for name in where}
    expected = everything(estimator, **batch, mask=mask)
    for name, x in everything(estimator, **spoilt, mask=mask).items():
        assert x.isfinite().all(), name
        assert torch.equal(x, expected[name]), name


def test_call_with_masked_samples_equals_call_without_them(estimator, batch):
    kept = torch.tensor([True, False, True])
    mask = kept[:, None].expand(SHAPE)
    masked = everything(estimator, **batch, mask=mask)
    absent = everything(estimator, **{name: x[:, kept] for name, x in batch.items()})
    assert masked.keys() == absent.keys()
    for name, expected in absent.items():
        torch.testing.assert_close(masked[name], expected, rtol=1e-13, atol=1e-13, msg=name)


def test_output_is_zero_at_masked_elements(estimator, batch, mask):
    batch["signal"][~mask] = torch.nan
    log_prob = batch["log_prob"].where(mask, -torch.inf).requires_grad_()
    out = estimator(log_prob, batch["signal"], batch["context"], mask)
    out.loss.sum().backward()
    for x in (out.loss, out.advantage, log_prob.grad):
        assert (x[~mask] == 0).all()
        assert (x[mask] != 0).any()


def test_mask_without_valid_elements_returns_zero_and_updates_nothing(estimator, batch):
    before = copy.deepcopy(estimator.state_dict())
    nothing = torch.zeros(SHAPE, dtype=torch.bool)
    log_prob = torch.full_like(batch["log_prob"], torch.nan, requires_grad=True)
    hidden = {name: torch.full_like(batch[name], torch.nan) for name in ("signal", "context")}
    out = estimator(log_prob, **hidden, mask=nothing)
    (out.loss.sum() + out.baseline_loss).backward()
    for x in (out.loss, out.advantage, out.baseline_loss, log_prob.grad):
        assert (x == 0).all()
    assert all((p.grad == 0).all() for p in estimator.parameters())
    after = estimator.state_dict()
    assert all(torch.equal(after[name], expected) for name, expected in before.items())


def test_smaller_mask_broadcasts(estimator, batch):
    steps = torch.tensor([True, False])[:, None, None]
    full = copy.deepcopy(estimator)(**batch, mask=steps.expand(SHAPE).clone())
    assert (full.loss[1] == 0).all()
    for x, expected in zip(estimator(**batch, mask=steps), full, strict=True):
        assert torch.equal(x, expected)
