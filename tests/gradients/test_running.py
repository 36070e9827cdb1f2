import copy
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zoo.gradients import MovingAverageBaseline, RunningMoments, RunningStd
from zoo.gradients._tensors import masked_mean
from zoo.gradients.running import RunningMean

BATCHES = st.lists(st.lists(st.integers(-50, 50), min_size=1, max_size=5), min_size=1, max_size=6)


def weighted(batches, decay, function):
    """Mean of `function` over batches; each batch counts `decay` times as much as the one after it."""
    weights = [decay ** (len(batches) - 1 - i) for i in range(len(batches))]
    means = [sum(map(function, batch)) / len(batch) for batch in batches]
    return sum(w * m for w, m in zip(weights, means, strict=True)) / sum(weights)


class TestMaskedMean:
    def test_masked_mean_is_over_valid_elements(self):
        x = torch.tensor([[1.0, 5.0], [torch.nan, torch.inf]])
        assert masked_mean(x, torch.tensor([[True, True], [False, False]])) == 3
        assert masked_mean(x[:1], None) == 3

    def test_masked_mean_of_one_element_is_that_element(self):
        assert masked_mean(torch.tensor([3.0]), None) == 3
        assert masked_mean(torch.tensor([torch.nan, 3.0]), torch.tensor([False, True])) == 3

    def test_masked_mean_is_zero_without_valid_elements(self):
        assert masked_mean(torch.tensor([torch.nan]), torch.tensor([False])) == 0
        assert masked_mean(torch.zeros(0), None) == 0


class TestRunningMean:
    @given(BATCHES, st.sampled_from([0.0, 0.5, 0.9, 0.99]))
    def test_running_mean_weights_batches_equally_whatever_their_sizes(self, batches, decay):
        mean = RunningMean(decay).double()
        assert mean.value == 0
        for batch in batches:
            mean.update(torch.tensor(batch, dtype=torch.float64))
        assert mean.value.item() == pytest.approx(weighted(batches, decay, float), abs=1e-9)

    def test_batch_without_valid_elements_does_not_update_the_mean(self):
        mean = RunningMean(0.9)
        mean.update(torch.tensor([5.0, 7.0]))
        before = copy.deepcopy(mean.state_dict())
        mean.update(torch.tensor([torch.nan]), torch.tensor([False]))
        mean.update(torch.zeros(0))
        assert all(torch.equal(x, before[name]) for name, x in mean.state_dict().items())

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_summed_in_single_precision(self, dtype):
        x = torch.full((70_001,), 1.5, dtype=dtype)  # neither the sum nor the count fits into half precision
        mean = RunningMean(0.9)
        mean.update(x)
        assert mean.value == 1.5

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("kind", [RunningMean, RunningStd])
    def test_state_stays_in_single_precision_if_a_module_is_cast_to_half(self, kind, dtype):
        cast, plain = kind(0.9), kind(0.9)
        for x in torch.randn(20, 5, generator=torch.Generator().manual_seed(0)) + 300:
            cast.to(dtype).update(x)
            plain.update(x)
        assert all(torch.equal(x, plain.state_dict()[name]) for name, x in cast.state_dict().items())
        assert cast.double().value.dtype == torch.float64

    def test_state_holds_no_graph(self):
        mean = RunningMean(0.9)
        mean.update(torch.ones(2, requires_grad=True))
        assert not mean.value.requires_grad

    def test_update_does_not_change_a_value_returned_before(self):
        """A compiled backward pass computes with what the buffers held before they learned."""
        mean = RunningMean(0.9)
        buffers = list(mean.buffers())
        mean.update(torch.ones(2))
        assert mean.value == 1
        assert all(buffer == 0 for buffer in buffers)

    @pytest.mark.filterwarnings("ignore:There is a performance drop")
    def test_update_under_vmap_raises(self):
        mean = RunningMean(0.9)
        with pytest.raises(RuntimeError, match="vmap"):
            torch.func.vmap(mean.update)(torch.ones(5, 2))
        assert mean.value == 0

    @pytest.mark.parametrize("decay", [-0.1, 1.0])
    def test_decay_outside_0_and_1_raises(self, decay):
        with pytest.raises(ValueError, match=rf"decay must lie in \[0, 1\), got {decay}"):
            RunningMean(decay)


class TestRunningStd:
    @given(BATCHES, st.sampled_from([0.0, 0.5, 0.9]), st.sampled_from([1e-6, 1.0, 30.0]))
    def test_value_is_the_standard_deviation_over_all_batches_or_the_floor(self, batches, decay, floor):
        scale = RunningStd(decay, floor).double()
        for batch in batches:
            scale.update(torch.tensor(batch, dtype=torch.float64))
        mean = weighted(batches, decay, float)
        variance = weighted(batches, decay, lambda x: (x - mean) ** 2)
        assert scale.value.item() == pytest.approx(max(floor, variance**0.5), rel=1e-6, abs=2e-6)

    @pytest.mark.parametrize("floor", [1e-30, 0.1, 0.29, 1.0, 7.0])
    def test_value_is_the_floor_before_the_first_batch_and_for_a_constant(self, floor):
        scale = RunningStd(floor=floor)
        assert scale.value == torch.tensor(floor)
        scale.update(torch.zeros(4))
        assert scale.value == torch.tensor(floor)

    def test_value_is_the_floor_if_rounding_makes_the_variance_negative(self):
        for advantage in torch.linspace(1, 2, 50):
            scale = RunningStd()
            scale.update(advantage)
            assert scale.value == 1

    def test_default_decay_is_nine_tenths(self):
        scale = RunningStd()
        for x in (10.0, 0.0):
            scale.update(torch.tensor([-x, x]))
        assert scale.value.item() == pytest.approx((100 * 0.9 / 1.9) ** 0.5)

    def test_masked_elements_are_ignored(self):
        scale = RunningStd()
        scale.update(torch.tensor([-4.0, torch.nan, 4.0]), torch.tensor([True, False, True]))
        assert scale.value == 4

    def test_half_precision_is_squared_in_single_precision(self):
        scale = RunningStd()
        scale.update(torch.tensor([-1000.0, 1000.0], dtype=torch.float16))
        assert scale.value == 1000

    @pytest.mark.parametrize("floor", [0.0, -1.0])
    def test_floor_must_be_positive(self, floor):
        with pytest.raises(ValueError, match=f"floor must be positive, got {floor}"):
            RunningStd(floor=floor)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two processes learns that hold uneven parts of the same batches."""
    folder = tmp_path_factory.mktemp("ranks")
    script = Path(__file__).with_name("two_ranks.py")
    processes = [subprocess.Popen([sys.executable, script, folder, str(rank)]) for rank in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def whole(ranks):
    """What one process learns from the whole batches."""
    average, scale = MovingAverageBaseline().double(), RunningStd().double()
    for parts in zip(*(rank["batches"] for rank in ranks), strict=True):
        signal, mask = (torch.cat([part[name] for part in parts]) for name in ("signal", "mask"))
        average(signal, mask=mask)
        scale.update(signal, mask)
    return {"moving average": average.state_dict(), "scale": scale.state_dict()}


class TestTwoRanks:
    @pytest.mark.parametrize("name", ["moving average", "scale"])
    def test_two_ranks_learn_the_same_as_one_process_with_the_whole_batch(self, ranks, whole, name):
        for key, expected in whole[name].items():
            torch.testing.assert_close(ranks[0][name][key], expected)

    @pytest.mark.parametrize("name", ["moving average", "scale"])
    def test_ranks_have_the_same_state(self, ranks, name):
        for key, x in ranks[0][name].items():
            assert torch.equal(ranks[1][name][key], x)

    def test_masked_batches_and_eval_mode_update_nothing(self, ranks):
        for rank in ranks:
            assert rank["unchanged by a masked batch and in eval mode"]

    def test_ranks_differ_without_communication(self, ranks, whole):
        alone = [rank["moving average, alone"]["mean.total"] for rank in ranks]
        assert alone[0] != alone[1]
        assert alone[0] != whole["moving average"]["mean.total"]


VECTORS = torch.randn(12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).exp()
WEIGHTS = torch.rand(12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("sizes", [[12], [1] * 12, [5, 7], [1, 10, 1]])
def test_running_moments_do_not_depend_on_the_groups(sizes):
    moments = RunningMoments()
    for vectors, weights in zip(VECTORS.split(sizes), WEIGHTS.split(sizes), strict=True):
        moments.update(vectors, weights)
    mean = WEIGHTS @ VECTORS / WEIGHTS.sum()
    for found, power in ((moments.m2, 2), (moments.m3, 3)):
        torch.testing.assert_close(found, WEIGHTS @ (VECTORS - mean) ** power, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(moments.mean, mean, rtol=1e-12, atol=0)


def test_running_moments_have_the_skewness_of_the_mean_or_zero_for_constants():
    """A draw that is 1 with frequency p has skewness (1 - 2p) / sqrt(p (1 - p)); the mean of n, that over sqrt(n)."""
    moments = RunningMoments()
    for value in [1.0] + [0.0] * 9:
        moments.update(torch.tensor([[value, 2.5]], dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    assert moments.skewness_of_mean[0].item() == pytest.approx(0.8 / math.sqrt(0.09 * 10), rel=1e-12)
    assert moments.skewness_of_mean[1] == 0
    assert moments.m2[1] == 0
