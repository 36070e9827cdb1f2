import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from zoo.gradients import (
    Baseline,
    ConstantBaseline,
    LearnedBaseline,
    LeaveOneOutBaseline,
    MovingAverageBaseline,
    Reinforce,
    SumBaseline,
)
from zoo.gradients.control_variates import ControlVariate
from zoo.gradients.estimators import VIMCOBaseline

SIGNAL = torch.tensor([1.0, 2.0, 6.0])


def context_for(signal):
    return torch.linspace(-1, 1, signal.numel() * 3, dtype=signal.dtype).reshape(*signal.shape, 3)


@pytest.fixture
def signal():
    """Whole numbers, so that sums are exact in whatever order they are taken; (time, sample, input)."""
    return torch.randint(-9, 10, (2, 3, 4), generator=torch.Generator().manual_seed(0)).double()


def state_of(baseline):
    return copy.deepcopy(baseline.state_dict())


def same(state, other):
    assert state.keys() == other.keys()
    return all(torch.equal(x, other[name]) for name, x in state.items())


class TestEveryBaseline:
    def test_value_does_not_depend_on_its_own_signal(self, baseline, signal):
        value = copy.deepcopy(baseline)(signal, context_for(signal)).value
        for i in range(signal.numel()):
            changed = signal.clone()
            changed.view(-1)[i] += 100
            moved = copy.deepcopy(baseline)(changed, context_for(signal)).value
            torch.testing.assert_close(moved.flatten()[i], value.flatten()[i], rtol=0, atol=1e-12)

    def test_value_is_detached_and_has_the_shape_of_the_signal(self, baseline, signal):
        out = baseline(signal.requires_grad_(), context_for(signal).requires_grad_())
        assert out.value.shape == signal.shape
        assert not out.value.requires_grad
        assert out.loss.shape == ()

    def test_loss_trains_only_the_parameters_of_the_baseline(self, baseline, signal):
        context = context_for(signal).requires_grad_()
        signal.requires_grad_()
        loss = baseline(signal, context).loss
        assert loss.requires_grad == any(True for _ in baseline.parameters())
        if loss.requires_grad:
            loss.backward()
            assert all((p.grad != 0).any() for p in baseline.parameters())
        assert context.grad is None
        assert signal.grad is None

    def test_policy_loss_has_no_gradient_to_the_baseline(self, baseline, signal):
        log_prob = torch.zeros_like(signal, requires_grad=True)
        Reinforce(baseline)(log_prob, signal, context_for(signal)).loss.sum().backward()
        assert (log_prob.grad != 0).any()
        assert all(p.grad is None for p in baseline.parameters())

    def test_eval_mode_returns_the_same_value_and_learns_nothing(self, baseline, signal):
        before = state_of(baseline)
        frozen = copy.deepcopy(baseline).eval()
        out = frozen(signal, context_for(signal))
        trained = baseline(signal, context_for(signal))
        assert torch.equal(out.value, trained.value)
        assert torch.equal(out.loss, trained.loss)
        assert not out.loss.requires_grad
        assert same(frozen.state_dict(), before)

    def test_resumed_state_continues_exactly(self, baseline, signal):
        resumed = copy.deepcopy(baseline)
        for tensor in resumed.state_dict().values():
            tensor.fill_(torch.nan)
        resumed.load_state_dict(state_of(baseline))
        for factor in (1, 2, 3):
            out, expected = (b(factor * signal, context_for(signal)) for b in (resumed, baseline))
            assert torch.equal(out.value, expected.value)
            assert torch.equal(out.loss, expected.loss)
        assert same(resumed.state_dict(), baseline.state_dict())

    def test_batches_of_any_size_are_supported(self, baseline, signal):
        for batch in (signal, signal[..., :1], signal[:1], signal[..., :0]):
            out = baseline(batch, context_for(batch))
            assert out.value.shape == batch.shape
            assert out.loss.isfinite()
        assert all(x.isfinite().all() for x in baseline.state_dict().values())

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    def test_value_has_the_precision_of_the_signal(self, baseline, signal, dtype):
        baseline.float()
        context = context_for(signal).float()
        out = baseline(signal.to(dtype), context)
        assert (out.value.dtype, out.loss.dtype) == (dtype, dtype)
        assert out.value.isfinite().all()

    def test_inputs_are_not_changed(self, baseline, signal):
        context, mask = context_for(signal), signal > 0
        inputs = signal, context, mask
        before = [x.clone() for x in inputs]
        baseline(*inputs)
        assert all(torch.equal(x, y) for x, y in zip(inputs, before, strict=True))


class TestNewBaseline:
    """The order of value and learning stands in the base class."""

    class LastSum(Baseline):
        last: torch.Tensor

        def __init__(self):
            super().__init__()
            self.register_buffer("last", torch.zeros(()))
            self.slope = nn.Parameter(torch.ones(()))

        def predict(self, signal, context, mask):
            return self.last * self.slope

        def update(self, signal, mask):
            self.last = signal.sum()

    def test_learns_after_its_value_was_used(self):
        baseline = self.LastSum()
        assert [baseline(SIGNAL).value.tolist() for _ in range(2)] == [[0, 0, 0], [9, 9, 9]]

    def test_learns_in_train_mode_only(self):
        baseline = self.LastSum().eval()
        assert [baseline(SIGNAL).value.tolist() for _ in range(2)] == [[0, 0, 0], [0, 0, 0]]

    def test_value_is_detached(self):
        assert not self.LastSum()(SIGNAL).value.requires_grad

    def test_fits_its_own_prediction_to_the_signal(self):
        class TooHighCostsMore(self.LastSum):
            def compute_loss(self, prediction, signal, context, mask):
                excess = prediction - signal
                return torch.where(excess > 0, 2 * excess, -excess).mean()

        baseline = TooHighCostsMore()
        assert [baseline(SIGNAL).loss.item() for _ in range(2)] == [3, pytest.approx(2 * (8 + 7 + 3) / 3)]

    def test_masked_values_do_not_reach_predict_and_update(self):
        baseline = self.LastSum()
        baseline(torch.tensor([1.0, torch.nan, 6.0]), mask=torch.tensor([True, False, True]))
        assert baseline.last == 7

    def test_base_class_predicts_zero(self):
        assert Baseline()(SIGNAL).value.tolist() == [0, 0, 0]


class TestConstant:
    def test_value_is_the_same_everywhere(self):
        assert ConstantBaseline(-2.5)(SIGNAL).value.tolist() == [-2.5, -2.5, -2.5]

    @pytest.mark.usefixtures("without_type_checks")
    @pytest.mark.parametrize("start", [0.0, 0])
    def test_constant_is_in_the_state_dict(self, start):
        baseline = ConstantBaseline(start)
        baseline.load_state_dict(ConstantBaseline(3.5).state_dict())
        assert baseline(SIGNAL).value.tolist() == [3.5, 3.5, 3.5]

    def test_constant_must_be_finite(self):
        with pytest.raises(ValueError, match="must be finite, got nan"):
            ConstantBaseline(torch.nan)


class TestMovingAverage:
    def test_value_is_zero_before_the_first_batch_and_bias_corrected_afterwards(self):
        baseline = MovingAverageBaseline(decay=0.5)
        values = [baseline(torch.full((2,), x)).value[0].item() for x in (4.0, 8.0, 0.0, 0.0)]
        # the means of [4], [4, 8] and [4, 8, 0], each older batch counting half as much as the next
        assert values == pytest.approx([0, 4, (4 + 2 * 8) / 3, (4 + 2 * 8 + 4 * 0) / 7])

    def test_mean_of_a_batch_is_over_all_elements(self):
        baseline = MovingAverageBaseline()
        baseline(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 9.0]]))
        assert baseline(torch.zeros(5)).value.tolist() == [4, 4, 4, 4, 4]

    def test_mean_of_a_batch_is_over_valid_elements(self):
        baseline = MovingAverageBaseline()
        baseline(SIGNAL, mask=torch.tensor([True, False, True]))
        assert baseline(SIGNAL).value[0] == 3.5

    def test_default_decay_is_nine_tenths(self):
        baseline = MovingAverageBaseline()
        values = [baseline(torch.full((2,), x)).value[0].item() for x in (10.0, 0.0, 0.0)]
        assert values == pytest.approx([0, 10, 10 * 0.9 / 1.9])

    def test_decay_of_zero_keeps_only_the_last_batch(self):
        baseline = MovingAverageBaseline(decay=0.0)
        for x in (4.0, 8.0, 5.0):
            baseline(torch.full((2,), x))
        assert baseline(SIGNAL).value.tolist() == [5, 5, 5]

    @pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5])
    def test_decay_outside_0_and_1_raises(self, decay):
        with pytest.raises(ValueError, match=rf"decay must lie in \[0, 1\), got {decay}"):
            MovingAverageBaseline(decay)


@st.composite
def signals_and_dim(draw):
    shape = draw(st.lists(st.integers(2, 4), min_size=1, max_size=4))
    dim = draw(st.integers(-len(shape), len(shape) - 1))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    signal = torch.randint(-99, 100, shape, generator=generator).double()
    mask = torch.rand(shape, generator=generator) < draw(st.sampled_from([0.0, 0.3, 0.7, 1.0]))
    return signal, mask, dim


class TestLeaveOneOut:
    def test_value_is_the_mean_of_the_others(self):
        assert LeaveOneOutBaseline(0)(SIGNAL).value.tolist() == [4, 3.5, 1.5]

    @given(signals_and_dim())
    def test_value_is_the_mean_of_the_valid_others_along_its_dimension(self, case):
        signal, mask, dim = case
        expected = torch.zeros_like(signal)
        rows = [x.movedim(dim, -1).reshape(-1, x.shape[dim]) for x in (signal, mask)]
        expected = torch.zeros_like(rows[0])
        for i, (row, valid) in enumerate(zip(*rows, strict=True)):
            for k in range(len(row)):
                others = [row[j].item() for j in range(len(row)) if j != k and valid[j]]
                expected[i, k] = sum(others) / len(others) if others else 0
        value = LeaveOneOutBaseline(dim)(signal, mask=mask).value
        assert torch.equal(value.movedim(dim, -1).reshape(rows[0].shape), expected)

    @given(signals_and_dim())
    def test_advantages_are_deviations_from_the_mean_times_k_over_k_minus_1(self, case):
        signal, _, dim = case
        samples = signal.shape[dim]
        advantage = signal - LeaveOneOutBaseline(dim)(signal).value
        deviation = signal - signal.mean(dim, keepdim=True)
        torch.testing.assert_close(advantage, deviation * samples / (samples - 1))
        torch.testing.assert_close(advantage.sum(dim), torch.zeros_like(advantage.sum(dim)))

    @given(signals_and_dim())
    def test_shift_of_all_signals_shifts_the_value(self, case):
        signal, mask, dim = case
        lonely = mask.sum(dim, keepdim=True) - mask.int() == 0
        shifted = LeaveOneOutBaseline(dim)(signal + 5, mask=mask).value
        expected = LeaveOneOutBaseline(dim)(signal, mask=mask).value + torch.where(lonely, 0, 5)
        torch.testing.assert_close(shifted, expected)

    @pytest.mark.parametrize("dim", [3, -4])
    def test_missing_dimension_raises(self, dim):
        with pytest.raises(ValueError, match=rf"LeaveOneOutBaseline\(dim={dim}\) needs that dimension.*\(2, 3, 1\)"):
            LeaveOneOutBaseline(dim)(torch.zeros(2, 3, 1))

    @pytest.mark.parametrize("dim", [2, -1])
    def test_single_sample_raises(self, dim):
        with pytest.raises(
            ValueError, match=rf"LeaveOneOutBaseline\(dim={dim}\) needs at least 2 samples.*\(2, 3, 1\)"
        ):
            LeaveOneOutBaseline(dim)(torch.zeros(2, 3, 1))

    def test_dim_counts_in_the_shape_of_log_prob(self):
        # one signal for all time steps; dimension 0 of log_prob is time, of the signal it is the sample
        signal = torch.tensor([[1.0], [2.0], [6.0]])
        out = Reinforce(LeaveOneOutBaseline(dim=1))(torch.zeros(2, 3, 1), signal)
        assert out.baseline[..., 0].tolist() == [[4, 3.5, 1.5], [4, 3.5, 1.5]]


class LastFeature(nn.Module):
    """A network with one weight, whose guess is written by hand; it can give (*dims) or (*dims, 1)."""

    def __init__(self, keepdim=False):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.keepdim = keepdim

    def forward(self, context):
        guess = self.weight * context[..., -1]
        return guess.unsqueeze(-1) if self.keepdim else guess


class TestLearned:
    context = torch.tensor([[7.0, 1.0], [7.0, 0.0], [7.0, 2.0]])

    @pytest.mark.parametrize("keepdim", [False, True])
    def test_value_is_the_prediction_fitted_by_mean_squared_error(self, keepdim):
        baseline = LearnedBaseline(LastFeature(keepdim))
        out = baseline(SIGNAL, self.context)
        assert out.value.tolist() == [2, 0, 4]
        assert out.loss.item() == pytest.approx((1 + 4 + 4) / 3)
        out.loss.backward()
        assert baseline.net.weight.grad.item() == pytest.approx(2 * (1 * 1 + 0 - 2 * 2) / 3)

    def test_fits_the_mean_over_valid_elements(self):
        out = LearnedBaseline(LastFeature())(SIGNAL, self.context, torch.tensor([True, True, False]))
        assert out.loss.item() == pytest.approx((1 + 4) / 2)

    @pytest.mark.parametrize("shape", [(), (3, 1), (1, 1), (2, 1, 3)])
    def test_batch_dimensions_of_size_one_are_kept(self, shape):
        out = LearnedBaseline(nn.Linear(4, 1))(torch.zeros(shape), torch.zeros(*shape, 4))
        assert out.value.shape == shape

    def test_value_follows_the_trained_network(self):
        baseline = LearnedBaseline(LastFeature())
        baseline(SIGNAL, self.context).loss.backward()
        torch.optim.SGD(baseline.parameters(), lr=0.75).step()  # along -2 from 2
        assert baseline(SIGNAL, self.context).value.tolist() == [3.5, 0, 7]

    def test_missing_context_raises(self):
        with pytest.raises(ValueError, match="LearnedBaseline needs context="):
            LearnedBaseline(LastFeature())(SIGNAL)

    @pytest.mark.parametrize("outputs", [2, 3])
    def test_network_output_of_another_shape_raises(self, outputs):
        with pytest.raises(ValueError, match=rf"must return shape \(3,\) or \(3, 1\), got \(3, {outputs}\)"):
            LearnedBaseline(nn.Linear(2, outputs))(SIGNAL, self.context)

    @pytest.mark.parametrize("mask", [None, SIGNAL > 1], ids=["all valid", "masked"])
    def test_context_of_another_batch_size_raises(self, mask):
        with pytest.raises(ValueError, match=r"must return shape \(3,\) or \(3, 1\), got \(2, 1\)"):
            LearnedBaseline(nn.Linear(2, 1))(SIGNAL, self.context[:2], mask)


class TestSum:
    def test_each_member_fits_the_residual_of_those_before_it(self):
        baseline = SumBaseline(
            ConstantBaseline(1.0),
            LearnedBaseline(LastFeature()),
            LearnedBaseline(LastFeature()),
            LeaveOneOutBaseline(0),
        )
        out = baseline(SIGNAL, TestLearned.context)
        # guesses of 2, 0, 4 twice; the residuals are 0, 1, 5, then -2, 1, 1, then -4, 1, -3
        assert out.value.tolist() == [1 + 4 - 1, 1 + 0 - 3.5, 1 + 8 - 1.5]
        assert out.loss.item() == pytest.approx((4 + 1 + 1) / 3 + (16 + 1 + 9) / 3)

    def test_moving_average_learns_the_residual(self):
        baseline = SumBaseline(ConstantBaseline(1.0), MovingAverageBaseline())
        baseline(SIGNAL)
        assert baseline.members[1].mean.value == 2
        assert baseline(SIGNAL).value.tolist() == [3, 3, 3]

    def test_sum_does_not_depend_on_nesting(self):
        def members():
            return (
                ConstantBaseline(1.0),
                LearnedBaseline(LastFeature()),
                MovingAverageBaseline(),
                LeaveOneOutBaseline(0),
            )

        a, b, c, d = members()
        flat, nested = SumBaseline(*members()), SumBaseline(SumBaseline(a, b), SumBaseline(c, SumBaseline(d)))
        for _ in range(3):
            expected, out = flat(SIGNAL, TestLearned.context), nested(SIGNAL, TestLearned.context)
            assert torch.equal(out.value, expected.value)
            assert torch.equal(out.loss, expected.loss)

    def test_sum_of_one_member_equals_that_member(self):
        assert SumBaseline(LeaveOneOutBaseline(0))(SIGNAL).value.tolist() == [4, 3.5, 1.5]

    def test_empty_sum_raises(self):
        with pytest.raises(ValueError, match="at least one baseline"):
            SumBaseline()

    @pytest.mark.parametrize(
        "members",
        [
            lambda: [LeaveOneOutBaseline(0), LeaveOneOutBaseline(0)],
            lambda: [LeaveOneOutBaseline(0), LeaveOneOutBaseline(1)],
            lambda: [
                LeaveOneOutBaseline(0),
                ConstantBaseline(1.0),
                SumBaseline(MovingAverageBaseline(), LeaveOneOutBaseline(0)),
            ],
        ],
        ids=["the same dimension", "two dimensions", "nested"],
    )
    def test_second_leave_one_out_raises(self, members):
        with pytest.raises(ValueError, match="one LeaveOneOutBaseline at most"):
            SumBaseline(*members())

    @pytest.mark.parametrize("other", [ControlVariate(), ControlVariate(num_extra_samples=3), VIMCOBaseline(0)])
    def test_two_members_that_compare_samples_raise_in_either_order(self, other):
        for members in ([LeaveOneOutBaseline(0), other], [other, ConstantBaseline(1.0), LeaveOneOutBaseline(0)]):
            with pytest.raises(ValueError, match="no other baseline that compares samples, got"):
                SumBaseline(*members)

    @pytest.mark.parametrize("other", [ControlVariate(), VIMCOBaseline(0)])
    def test_network_beside_a_context_with_the_sample_raises(self, other):
        for members in ([LearnedBaseline(LastFeature()), other], [other, SumBaseline(LearnedBaseline(LastFeature()))]):
            with pytest.raises(ValueError, match="cannot hold both a LearnedBaseline and"):
                SumBaseline(*members)
        SumBaseline(ConstantBaseline(1.0), other)

    @pytest.mark.parametrize(
        "member", [LeaveOneOutBaseline(0), MovingAverageBaseline()], ids=["leave-one-out", "moving average"]
    )
    def test_same_baseline_in_two_places_raises(self, member):
        with pytest.raises(ValueError, match="the same baseline twice"):
            SumBaseline(member, member)
        with pytest.raises(ValueError, match="the same baseline twice"):
            SumBaseline(member, SumBaseline(ConstantBaseline(1.0), member))

    def test_members_may_share_a_network(self):
        net = LastFeature()
        out = SumBaseline(LearnedBaseline(net), LearnedBaseline(net))(SIGNAL, TestLearned.context)
        assert out.value.tolist() == [4, 0, 8]
