import copy
import re

import numpy as np
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
    RunningStd,
    SumBaseline,
    score_function_loss,
)

LOG_PROB = torch.tensor([[-1.0, -2.0, -3.0], [-0.5, -0.25, -4.0]])
SIGNAL = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, -1.0]])


@st.composite
def shape_and_smaller_shape(draw):
    """A shape and another that broadcasts to it."""
    shape = draw(st.lists(st.integers(1, 4), max_size=4))
    kept = draw(st.integers(0, len(shape)))
    smaller = [draw(st.sampled_from([1, size])) for size in shape[len(shape) - kept :]]
    return shape, smaller


class TestScoreFunctionLoss:
    def test_loss_is_log_prob_times_signal_minus_baseline(self):
        expected = [[-1.0, 2.0, 0.0], [1.0, -0.75, 12.0]]
        assert score_function_loss(LOG_PROB, SIGNAL, baseline=2.0).tolist() == expected

    def test_default_baseline_is_zero(self):
        assert torch.equal(score_function_loss(LOG_PROB, SIGNAL), LOG_PROB * SIGNAL)

    def test_gradient_is_the_advantage(self):
        log_prob = LOG_PROB.clone().requires_grad_()
        baseline = torch.tensor([1.0, 2.0, 3.0])
        score_function_loss(log_prob, SIGNAL, baseline).sum().backward()
        assert torch.equal(log_prob.grad, SIGNAL - baseline)

    @given(shape_and_smaller_shape(), st.data())
    def test_signal_baseline_and_mask_broadcast(self, shapes, data):
        shape, smaller = shapes
        log_prob, small = torch.randn(shape), torch.randn(smaller)
        name = data.draw(st.sampled_from(["signal", "baseline", "mask"]))
        small = small > 0 if name == "mask" else small
        full = {"signal": torch.randn(shape), "baseline": torch.randn(shape)}
        loss = score_function_loss(log_prob, **full | {name: small})
        assert torch.equal(loss, score_function_loss(log_prob, **full | {name: small.expand(shape).clone()}))

    @pytest.mark.parametrize("name", ["signal", "baseline", "mask"])
    @pytest.mark.parametrize("shape", [(2,), (3, 3), (1, 2, 3), (2, 3, 1)])
    def test_shape_that_does_not_broadcast_raises(self, name, shape):
        dtype = torch.bool if name == "mask" else torch.float32
        arguments = {"signal": SIGNAL, name: torch.ones(shape, dtype=dtype)}
        message = f"{name} of shape {shape} does not broadcast to log_prob of shape (2, 3)"
        with pytest.raises(ValueError, match=rf"^{re.escape(message)}$"):
            score_function_loss(LOG_PROB, **arguments)

    def test_no_gradient_reaches_signal_or_baseline(self):
        signal, baseline = SIGNAL.clone().requires_grad_(), torch.ones(3, requires_grad=True)
        log_prob = LOG_PROB.clone().requires_grad_()
        score_function_loss(log_prob, signal, baseline).sum().backward()
        assert log_prob.grad is not None
        assert signal.grad is None
        assert baseline.grad is None

    @pytest.mark.parametrize("baseline", [0.1, torch.tensor(0.1, dtype=torch.float64), torch.tensor(1)])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    def test_loss_has_the_precision_of_log_prob(self, baseline, dtype):
        loss = score_function_loss(LOG_PROB.to(dtype), SIGNAL, baseline)
        expected = LOG_PROB.to(dtype) * (SIGNAL.to(dtype) - torch.as_tensor(baseline, dtype=dtype))
        assert loss.dtype == dtype
        assert torch.equal(loss, expected)

    @pytest.mark.parametrize("baseline", [0.1, torch.tensor(0.1)])
    def test_numbers_move_to_the_device_of_log_prob(self, baseline):
        elsewhere = LOG_PROB.to("meta"), SIGNAL.to("meta")
        assert score_function_loss(*elsewhere, baseline).device == torch.device("meta")

    @pytest.mark.usefixtures("without_type_checks")
    @pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.uint8])
    def test_mask_of_numbers_raises(self, dtype):
        mask = torch.ones(2, 3, dtype=dtype)
        for call in (score_function_loss, Reinforce()):
            with pytest.raises(ValueError, match=f"mask must be boolean, true where .* counts, got {dtype}"):
                call(LOG_PROB, SIGNAL, mask=mask)

    def test_vmap_equals_a_loop(self):
        arguments = torch.randn(5, 2, 3), torch.randn(5, 2, 3), torch.randn(5, 3), torch.randn(5, 2, 1) > 0
        mapped = torch.func.vmap(score_function_loss)(*arguments)
        looped = torch.stack([score_function_loss(*each) for each in zip(*arguments, strict=True)])
        assert torch.equal(mapped, looped)


class TestReinforce:
    def test_output_holds_loss_advantage_and_baseline_per_element(self):
        out = Reinforce(ConstantBaseline(2.0))(LOG_PROB, SIGNAL)
        assert out.loss.tolist() == [[-1.0, 2.0, 0.0], [1.0, -0.75, 12.0]]
        assert out.advantage.tolist() == [[1.0, -1.0, 0.0], [-2.0, 3.0, -3.0]]
        assert out.baseline.tolist() == [[2.0, 2.0, 2.0], [2.0, 2.0, 2.0]]
        assert out.baseline_loss == 0

    def test_advantage_is_the_signal_without_a_baseline(self):
        out = Reinforce()(LOG_PROB, SIGNAL)
        assert torch.equal(out.loss, LOG_PROB * SIGNAL)
        assert torch.equal(out.advantage, SIGNAL)
        assert (out.baseline == 0).all()

    def test_maximize_changes_only_the_sign_of_the_loss(self, baseline):
        signal, context = SIGNAL.double()[..., None], torch.ones(2, 3, 1, 3, dtype=torch.float64)
        cost = Reinforce(copy.deepcopy(baseline))(LOG_PROB.double()[..., None], signal, context)
        reward = Reinforce(baseline, maximize=True)(LOG_PROB.double()[..., None], signal, context)
        assert torch.equal(reward.loss, -cost.loss)
        assert (cost.loss != 0).any()
        for name in ("baseline_loss", "advantage", "baseline"):
            assert torch.equal(getattr(reward, name), getattr(cost, name))

    def test_advantage_is_divided_by_the_scale_before_the_batch(self):
        estimator = Reinforce(ConstantBaseline(1.0), RunningStd(floor=0.5))
        advantage = SIGNAL - 1
        for scale in (0.5, advantage.std(correction=0), advantage.std(correction=0)):
            out = estimator(LOG_PROB, SIGNAL)
            torch.testing.assert_close(out.advantage, advantage / scale)
            torch.testing.assert_close(out.loss, LOG_PROB * advantage / scale)
            assert torch.equal(out.baseline, torch.ones_like(SIGNAL))
            estimator.end_step()

    def test_baseline_learns_from_unscaled_signals(self):
        estimator = Reinforce(MovingAverageBaseline(), RunningStd(floor=100.0))
        estimator(LOG_PROB, SIGNAL)
        estimator.end_step()
        assert estimator(LOG_PROB, SIGNAL).baseline[0, 0] == pytest.approx(SIGNAL.mean().item())

    def test_baseline_loss_is_divided_by_the_scale(self):
        net = nn.Linear(1, 1)
        plain, scaled = Reinforce(LearnedBaseline(net)), Reinforce(LearnedBaseline(net), RunningStd(floor=4.0))
        context = torch.ones(2, 3, 1)
        expected, found = (each(LOG_PROB, SIGNAL, context).baseline_loss for each in (plain, scaled))
        assert found > 0
        torch.testing.assert_close(found, expected / 4)

    @pytest.mark.parametrize("part", ["all", "scale"])
    def test_eval_mode_does_not_update_the_scale(self, part):
        estimator = Reinforce(scale=RunningStd(floor=0.1))
        (estimator if part == "all" else estimator.scale).eval()

        def advantage():
            out = estimator(LOG_PROB, SIGNAL)
            estimator.end_step()
            return out.advantage

        assert torch.equal(advantage(), advantage())
        estimator.train()
        outs = advantage(), advantage()
        assert not torch.equal(*outs)

    def test_logged_parts_are_detached(self, baseline):
        log_prob = torch.zeros(2, 3, 1, dtype=torch.float64, requires_grad=True)
        signal = torch.ones(2, 3, 1, dtype=torch.float64, requires_grad=True)
        context = torch.ones(2, 3, 1, 3, dtype=torch.float64, requires_grad=True)
        out = Reinforce(baseline, RunningStd())(log_prob, signal, context)
        assert out.loss.requires_grad
        assert not out.advantage.requires_grad
        assert not out.baseline.requires_grad
        (out.loss.sum() + out.baseline_loss).backward()
        assert log_prob.grad is not None
        assert signal.grad is None
        assert context.grad is None

    def test_log_prob_may_have_no_gradient(self, baseline):
        context = torch.ones(2, 3, 1, 3, dtype=torch.float64)
        out = Reinforce(baseline)(LOG_PROB.double()[..., None], SIGNAL.double()[..., None], context)
        assert not out.loss.requires_grad

    @pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.bfloat16, torch.float64])
    def test_signal_may_have_any_number_type(self, baseline, dtype):
        signal = torch.tensor([[True, False, True], [False, False, True]])[..., None]
        log_prob, context = LOG_PROB[..., None], torch.ones(2, 3, 1, 3)
        baseline.float()
        expected = Reinforce(copy.deepcopy(baseline))(log_prob, signal.float(), context)
        for x, y in zip(Reinforce(baseline)(log_prob, signal.to(dtype), context), expected, strict=True):
            assert x.dtype == torch.float32
            # float64 and int64 are compared in float64, whose last step rounds otherwise
            torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize(
        ("dtype", "signal"),
        [
            (torch.bfloat16, torch.tensor([300.0, 301.0])),
            (torch.bfloat16, torch.tensor([300.0, 301.0], dtype=torch.float64)),
            (torch.float16, torch.tensor([70_000.0, 70_001.0])),
            (torch.float32, torch.tensor([1e9, 1e9 + 1], dtype=torch.float64)),
            (torch.float32, torch.tensor([2**40, 2**40 + 1])),
            (torch.float32, torch.tensor([2**30, 2**30 + 1], dtype=torch.int32)),
            (torch.float64, torch.tensor([300.0, 302.0], dtype=torch.bfloat16) / 2),
            (torch.float32, np.array([1e9, 1e9 + 1])),
            (torch.float32, [1e9, 1e9 + 1]),
        ],
    )
    @pytest.mark.parametrize(
        "make", [LeaveOneOutBaseline, lambda dim: SumBaseline(ConstantBaseline(2.0), LeaveOneOutBaseline(dim))]
    )
    def test_baseline_is_subtracted_in_the_precision_of_the_signal(self, make, dtype, signal):
        out = Reinforce(make(0))(torch.zeros(2, dtype=dtype, requires_grad=True), signal)
        assert out.advantage.dtype == dtype
        assert out.advantage.tolist() == [-1, 1]

    @pytest.mark.parametrize("baseline", [1e9, torch.tensor(10**9), torch.tensor(1e9, dtype=torch.float64)])
    def test_score_function_loss_subtracts_in_the_precision_of_the_signal(self, baseline):
        log_prob = torch.zeros(2, requires_grad=True)
        score_function_loss(log_prob, torch.tensor([10**9 - 1, 10**9 + 1]), baseline).sum().backward()
        assert log_prob.grad.tolist() == [-1, 1]

    def test_moving_average_is_subtracted_in_single_precision_for_half_precision_log_prob(self):
        estimator = Reinforce(MovingAverageBaseline()).bfloat16()
        log_prob = torch.zeros(2, dtype=torch.bfloat16)
        for _ in range(100):
            estimator(log_prob, torch.tensor([1000.0, 1002.0]))
            estimator.end_step()
        out = estimator(log_prob, torch.tensor([1000.0, 1002.0]))
        assert out.advantage.tolist() == pytest.approx([-1, 1], abs=1e-2)

    def test_loss_of_a_half_precision_baseline_is_in_single_precision(self):
        net = nn.Linear(1, 1).bfloat16()
        nn.init.zeros_(net.weight), nn.init.constant_(net.bias, 300.0)
        context = torch.zeros(2, 1, dtype=torch.bfloat16)
        out = Reinforce(LearnedBaseline(net))(
            torch.zeros(2), torch.tensor([300.5, 300.5], dtype=torch.float64), context
        )
        assert out.baseline_loss.item() == 0.25

    @pytest.mark.parametrize(
        ("signal", "expected"),
        [
            (0.5, [0.5, 0.5]),
            (2, [2, 2]),
            (True, [1, 1]),
            ([1.0, 3], [1, 3]),
            ((True, False), [1, 0]),
            (np.array([1, 3]), [1, 3]),
            (np.float32(0.5), [0.5, 0.5]),
            ([torch.tensor(1.0), torch.tensor(3.0)], [1, 3]),
        ],
    )
    def test_signal_may_be_a_number_list_or_array(self, signal, expected):
        log_prob = torch.tensor([-1.0, -2.0])
        assert Reinforce()(log_prob, signal).advantage.tolist() == expected
        assert score_function_loss(log_prob, signal).tolist() == [-expected[0], -2 * expected[1]]

    def test_mask_may_be_a_list_or_an_array(self):
        for mask in ([True, False], np.array([True, False])):
            assert Reinforce()(torch.tensor([-1.0, -2.0]), 3.0, mask=mask).loss.tolist() == [-3, 0]

    @pytest.mark.usefixtures("without_type_checks")
    @pytest.mark.parametrize("signal", ["ab", None, [torch.zeros(2), torch.zeros(2)], [[1.0], [2.0, 3.0]]])
    def test_signal_without_numbers_raises(self, signal):
        with pytest.raises(ValueError, match="signal must be a tensor, an array, a number or a list of numbers, got"):
            Reinforce()(torch.zeros(2), signal)

    @pytest.mark.usefixtures("without_type_checks")
    @pytest.mark.parametrize("log_prob", [0.5, [-0.5], np.zeros(2), torch.zeros(2, dtype=torch.int64)])
    def test_log_prob_other_than_floating_point_raises(self, log_prob):
        for call in (score_function_loss, Reinforce()):
            with pytest.raises(ValueError, match=r"log_prob must be a floating-point tensor, got .*; it comes first"):
                call(log_prob, torch.ones(2))

    def test_swapped_arguments_raise(self):
        log_prob, signal = torch.zeros(2, requires_grad=True), torch.ones(2)
        for call in (score_function_loss, Reinforce()):
            with pytest.raises(ValueError, match="log_prob has no gradient, but signal has one: log_prob comes first"):
                call(signal, log_prob)
            call(log_prob.detach(), log_prob.detach())
            with torch.no_grad():
                call(signal, log_prob)

    @pytest.mark.parametrize(
        ("given", "kind"),
        [
            ("none", Baseline),
            ("moving_average", MovingAverageBaseline),
            ("leave_one_out", LeaveOneOutBaseline),
            ("2.5", ConstantBaseline),
        ],
    )
    def test_baseline_may_be_a_name(self, given, kind):
        assert type(Reinforce(given).baseline) is kind

    def test_baseline_may_be_a_number(self):
        assert Reinforce(2.5)(LOG_PROB, SIGNAL).baseline.unique().tolist() == [2.5]

    @pytest.mark.usefixtures("without_type_checks")
    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"baseline": "learned"}, "the baseline 'learned' needs a network: use LearnedBaseline"),
            ({"baseline": "leave_two_out"}, "there is no baseline 'leave_two_out'; choose one of"),
            ({"baseline": LeaveOneOutBaseline}, "baseline must be a Baseline, the name of one, a number or None"),
            ({"baseline": nn.Linear(1, 1)}, "baseline must be a Baseline, the name of one, a number or None"),
            ({"scale": True}, "scale must be a RunningStd or None, got True"),
        ],
    )
    def test_invalid_baseline_or_scale_raises(self, options, sentence):
        with pytest.raises(ValueError, match=sentence):
            Reinforce(**options)

    def test_outputs_have_the_half_precision_of_log_prob(self):
        estimator = Reinforce(LeaveOneOutBaseline(1), RunningStd())
        for x in estimator(LOG_PROB.bfloat16(), SIGNAL):
            assert x.dtype == torch.bfloat16

    def test_outputs_of_a_single_sample_have_half_precision(self):
        for x in Reinforce(ConstantBaseline(1.0), RunningStd())(LOG_PROB[0, 0].bfloat16(), SIGNAL[0, 0]):
            assert x.dtype == torch.bfloat16

    @given(shape_and_smaller_shape())
    def test_signal_is_broadcast(self, shapes):
        shape, smaller = shapes
        log_prob, signal = torch.randn(shape), torch.randn(smaller)
        out = Reinforce(ConstantBaseline(1.5))(log_prob, signal)
        expected = Reinforce(ConstantBaseline(1.5))(log_prob, signal.expand(shape).clone())
        for x, y in zip(out, expected, strict=True):
            assert torch.equal(x, y)
        assert out.advantage.shape == out.baseline.shape == log_prob.shape

    @pytest.mark.parametrize("name", ["signal", "mask"])
    def test_shape_that_does_not_broadcast_raises(self, name):
        arguments = {"signal": SIGNAL, name: torch.ones(2, dtype=torch.bool)}
        with pytest.raises(ValueError, match=rf"{name} of shape \(2,\) does not broadcast to log_prob of shape"):
            Reinforce()(LOG_PROB, **arguments)

    def test_inputs_are_not_changed(self, baseline):
        inputs = LOG_PROB[..., None], SIGNAL[..., None], torch.ones(2, 3, 1, 3), SIGNAL[..., None] > 0
        before = [x.clone() for x in inputs]
        Reinforce(baseline.float(), RunningStd(), maximize=True)(*inputs)
        assert all(torch.equal(x, y) for x, y in zip(inputs, before, strict=True))

    def test_repeated_calls_before_backward_are_supported(self, baseline):
        estimator = Reinforce(baseline, RunningStd()).double()
        signal, context = SIGNAL.double()[..., None], torch.randn(2, 3, 1, 3, dtype=torch.float64)
        alone = copy.deepcopy(estimator)
        gradients = []
        for calls in (1, 3):
            log_prob = LOG_PROB.double()[..., None].requires_grad_()
            estimator = copy.deepcopy(alone)
            outs = [estimator(log_prob, signal, context) for _ in range(calls)]
            gradients.append(torch.autograd.grad(outs[0].loss.sum() + outs[0].baseline_loss, log_prob)[0])
        assert torch.equal(*gradients)

    def test_resumed_state_continues_exactly(self):
        estimator = Reinforce(MovingAverageBaseline(), RunningStd())
        estimator(LOG_PROB, SIGNAL)
        estimator.end_step()
        resumed = Reinforce(MovingAverageBaseline(), RunningStd())
        resumed.load_state_dict(copy.deepcopy(estimator.state_dict()))
        for factor in (3, -1):
            for x, y in zip(resumed(LOG_PROB, factor * SIGNAL), estimator(LOG_PROB, factor * SIGNAL), strict=True):
                assert torch.equal(x, y)
            resumed.end_step(), estimator.end_step()

    @pytest.mark.usefixtures("without_type_checks")
    @pytest.mark.parametrize("masked", [False, True])
    def test_vmap_equals_a_loop_for_stateless_baselines(self, baseline, masked):
        stateful = any(isinstance(part, MovingAverageBaseline) for part in baseline.modules())
        estimator = Reinforce(baseline).train(not stateful)
        inputs = [torch.randn(5, 2, 3, 4, *features, dtype=torch.float64) for features in ((), (), (3,))]
        inputs += [inputs[1] > 0] if masked else []
        mapped = torch.func.vmap(lambda *each: tuple(estimator(*each)))(*inputs)
        looped = zip(*[estimator(*each) for each in zip(*inputs, strict=True)], strict=True)
        for x, each in zip(mapped, looped, strict=True):
            torch.testing.assert_close(x, torch.stack(each))


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("masked", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("baseline", ["moving average", "learned", "nested"], indirect=True)
def test_compiled_graph_returns_the_same_numbers(baseline, masked):
    eager = Reinforce(baseline, RunningStd(), maximize=True).double()
    compiled = copy.deepcopy(eager)
    torch.compiler.reset()
    graph = torch.compile(compiled, backend="aot_eager", fullgraph=True)
    for seed in range(3):
        torch.manual_seed(seed)
        signal, context = (torch.randn(2, 3, 4, *features, dtype=torch.float64) for features in ((), (3,)))
        mask = signal > 0 if masked else None
        results = []
        for estimator in (eager, graph):
            log_prob = torch.zeros_like(signal, requires_grad=True)
            out = estimator(log_prob, signal, context, mask)
            (out.loss.sum() + out.baseline_loss).backward()
            results.append((*out, log_prob.grad, *(x.grad for x in estimator.parameters())))
        for x, expected in zip(*reversed(results), strict=True):
            torch.testing.assert_close(x, expected)
    for x, expected in zip(compiled.state_dict().values(), eager.state_dict().values(), strict=True):
        torch.testing.assert_close(x, expected)


def test_no_baseline_equals_the_base_class():
    assert type(Reinforce().baseline) is Baseline


REFUSED = {
    "mask of a string": ({"mask": "a"}, "mask must be a tensor, an array, a number or a list"),
    "mask with None": ({"mask": [None, True]}, "mask must be a tensor, an array, a number or a list"),
    "mask of integers": ({"mask": [1, 0]}, "mask must be boolean"),
    "context of strings": ({"context": ["a", "b"]}, "context must be a tensor, an array, a number or a list"),
    "signal in 8 bits": (
        {"signal": torch.ones(2).to(torch.float8_e4m3fn)},
        "signal must be of real numbers of 16 bits or more, got torch.float8_e4m3fn",
    ),
    "huge signal": ({"signal": 10**400}, "signal must be a tensor.*numbers must fit into double precision"),
    "complex signal": ({"signal": torch.tensor([1j, 2j])}, "signal must be of real numbers .*, got torch.complex64"),
    "complex numbers": ({"signal": np.array([1j, 2j])}, "signal must be of real numbers .*, got torch.complex128"),
}


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(("arguments", "sentence"), REFUSED.values(), ids=REFUSED)
def test_arguments_other_than_real_tensors_raise(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        Reinforce()(torch.zeros(2, requires_grad=True), **{"signal": 1.0, **arguments})


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_context_may_be_a_list_or_an_array(dtype):
    estimator, log_prob = (
        Reinforce(LearnedBaseline(nn.Linear(1, 1).to(dtype))),
        torch.zeros(2, dtype=dtype, requires_grad=True),
    )
    expected = estimator(log_prob, 1.0, torch.tensor([[1.0], [2.0]], dtype=dtype))
    for context in ([[1.0], [2.0]], np.array([[1.0], [2.0]])):
        assert torch.equal(estimator(log_prob, 1.0, context).baseline, expected.baseline)
    words = Reinforce(LearnedBaseline(nn.Embedding(3, 1).to(dtype)))
    assert words(log_prob, 1.0, [0, 2]).baseline.shape == (2,)
