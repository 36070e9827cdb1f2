from unittest.mock import Mock

import pytest
import pytorch_lightning as pl
import torch

from zoo.training import NonFiniteError, read_checkpoint, sum_losses
from zoo.training._finite import FiniteGradients

NAN, INF = float("nan"), float("inf")


class TestSumLosses:
    def test_sum_of_losses_carries_their_gradient(self):
        x = torch.tensor(3.0, requires_grad=True)
        sum_losses({"square": x**2, "line": -2 * x}, step=0).backward()
        assert x.grad == 4

    @pytest.mark.parametrize("value", [NAN, INF, -INF])
    def test_error_names_step_and_term_that_is_not_finite(self, value):
        terms = {"policy": torch.tensor(1.0), "baseline": torch.tensor(value)}
        with pytest.raises(NonFiniteError, match=rf"not finite at step 17: baseline \({value}\); nothing was changed"):
            sum_losses(terms, step=17)

    def test_error_names_every_term_that_is_not_finite(self):
        with pytest.raises(NonFiniteError, match=r": a \(inf\), b \(-inf\);"):
            sum_losses({"a": torch.tensor(INF), "b": torch.tensor(-INF), "c": torch.tensor(0.0)}, step=0)

    def test_error_reports_infinite_sum_of_finite_terms(self):
        huge = torch.tensor(3e38)
        with pytest.raises(NonFiniteError, match="the sum of its terms overflows"):
            sum_losses({"a": huge, "b": huge}, step=0)


class TestFiniteGradients:
    @pytest.fixture
    def broken(self, noisy):
        """A module whose loss is finite, and whose gradient is not from the third step on."""
        module, calls = noisy(), []

        def spoil(gradient):
            calls.append(gradient)
            return gradient if len(calls) < 3 else gradient * NAN

        module.net.bias.register_hook(spoil)
        return module

    def weights_at(self, at, step):
        kept = {}
        return kept, at(step, lambda m: kept.update({k: v.clone() for k, v in m.named_parameters()}))

    def test_nonfinite_gradient_stops_with_step_and_parameter_and_keeps_weights(self, broken, train, at, tmp_path):
        before, keep = self.weights_at(at, 3)
        with pytest.raises(NonFiniteError, match=r"not finite at step 2, in net\.bias; nothing was changed"):
            train(tmp_path, keep, module=broken)
        assert all(torch.equal(p, before[name]) for name, p in broken.named_parameters())

    def test_without_the_callback_the_weights_become_nan(self, broken, train, at, tmp_path, monkeypatch):
        monkeypatch.setattr(FiniteGradients, "on_before_optimizer_step", lambda *args: None)
        with pytest.raises(NonFiniteError):  # the next loss
            train(tmp_path, module=broken)
        assert broken.net.weight.isnan().all()  # clipping by the norm of the whole gradient spreads it

    def test_nonfinite_gradient_leaves_the_last_checkpoint(self, train, at, tmp_path):
        with pytest.raises(NonFiniteError, match="step 6"):
            train(tmp_path, at(7, lambda module: module.net.weight.data.fill_(NAN)))
        saved = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
        assert saved["global_step"] == 4
        assert all(x.isfinite().all() for x in saved["state_dict"].values())

    def check(self, module):
        trainer, optimizer = Mock(spec=pl.Trainer, global_step=5), Mock(spec=torch.optim.Optimizer)
        FiniteGradients().on_before_optimizer_step(trainer, module, optimizer)

    def test_infinite_norm_of_finite_gradients_is_reported(self, noisy):
        module = noisy()
        for p in module.parameters():
            p.grad = torch.full_like(p, 3e38)
        with pytest.raises(NonFiniteError, match="at step 5, in its norm"):
            self.check(module)

    def test_parameters_without_gradient_are_ignored(self, noisy):
        self.check(noisy())
