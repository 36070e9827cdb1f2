import itertools
import math
from functools import cache

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.testing.fakes import NonreparameterizedNormal
from pyro.infer import Trace_ELBO
from pyro.nn import PyroModule, PyroParam
from scipy import stats
from torch import nn
from torch.distributions import constraints

from zoo._stats import Estimate
from zoo.inference.diagnostics import (
    ALL,
    BASIC,
    CONTROL_VARIATE,
    RAO_BLACKWELL,
    VarianceReport,
    VarianceRow,
    default_estimators,
    variance_report,
)
from zoo.inference.diagnostics import variance as module

pytestmark = pytest.mark.filterwarnings("ignore:site .* is outside every plate")

P_ALARM = 1e-6
WIDER = stats.t.ppf(1 - P_ALARM / 2, module.NUM_BATCHES - 1) / stats.t.ppf(0.975, module.NUM_BATCHES - 1)
START = torch.tensor([0.4, -0.8], dtype=torch.float64)


def model():
    a = pyro.sample("a", dist.Bernoulli(torch.tensor(0.3)))
    b = pyro.sample("b", dist.Bernoulli(torch.tensor(0.6)))
    pyro.sample("x", dist.Normal(2 * a, 1.0), obs=torch.tensor(0.7))
    pyro.sample("y", dist.Normal(3 * b, 1.0), obs=torch.tensor(1.9))


def guide():
    for name, start in zip("ab", START, strict=True):
        pyro.sample(name, dist.Bernoulli(logits=pyro.param(f"logit {name}", start.clone())))


def exact(kind, num_particles=2):
    """Mean and variance of the gradient for both parameters, over all that can be drawn."""
    z = torch.tensor(list(itertools.product([0.0, 1.0], repeat=2 * num_particles))).reshape(-1, num_particles, 2)
    log_q = dist.Bernoulli(logits=START).log_prob(z)
    log_p = dist.Bernoulli(torch.tensor([0.3, 0.6])).log_prob(z)
    log_p = log_p + dist.Normal(torch.tensor([2.0, 3.0]) * z, 1.0).log_prob(torch.tensor([0.7, 1.9]))
    signal = log_p - log_q
    if kind == BASIC:
        signal = signal.sum(-1, keepdim=True).expand_as(signal)
    if kind == "leave_one_out":
        signal = signal - (signal.sum(1, keepdim=True) - signal) / (num_particles - 1)
    gradient = (-(z - START.sigmoid()) * signal).mean(1)
    weight = log_q.sum((1, 2)).exp()
    mean = weight @ gradient
    return mean, weight @ (gradient - mean).square()


@cache
def made():
    return variance_report(model, guide, num_samples=200, num_particles=2, vectorize_particles=True)


@pytest.fixture
def report():
    """One report for all tests, made in the first one: 200 estimates at 2 particles."""
    return made()


def agrees(found, value):
    return abs(math.log(found.value / value)) < WIDER * math.log(found.high / found.value)


@pytest.mark.parametrize("kind", [BASIC, RAO_BLACKWELL, "leave_one_out"])
class TestAgainstEnumeration:
    def test_variance_of_each_parameter_equals_enumeration(self, report, kind):
        _, variance = exact(kind)
        for name, value in zip("ab", variance.tolist(), strict=True):
            assert agrees(report.row(kind, f"logit {name}").variance, value)
        assert agrees(report.row(kind).variance, variance.sum().item())

    def test_reduction_equals_ratio_of_enumerated_variances(self, report, kind):
        (_, first), (_, other) = exact(BASIC), exact(kind)
        assert agrees(report.row(RAO_BLACKWELL, ALL).reduction, (exact(BASIC)[1].sum() / exact(RAO_BLACKWELL)[1].sum()))
        found = report.row(kind).reduction
        assert found.value == pytest.approx((first.sum() / other.sum()).item(), rel=0.25)

    def test_signal_to_noise_and_needed_particles_equal_enumeration(self, report, kind):
        mean, variance = exact(kind)
        row = report.row(kind)
        assert row.signal_to_noise == pytest.approx((mean.norm() / variance.sum().sqrt()).item(), rel=0.15)
        assert row.num_particles_needed == math.ceil(2 / row.signal_to_noise**2)


class TestTheReport:
    def test_report_distinguishes_estimators(self, report):
        _, variance = exact(RAO_BLACKWELL)
        assert not agrees(report.row(BASIC).variance, variance.sum().item())
        assert report.row("leave_one_out").reduction.low > 2

    def test_reduction_of_first_estimator_is_1(self, report):
        assert report.row(BASIC).reduction == (1, 1, 1)

    def test_report_prints_all_estimators_and_parameters(self, report):
        lines = str(report).splitlines()
        assert lines[0].startswith("variance of the ELBO's gradient with 2 particles, 200 estimates each")
        assert len(lines) == 2 + 3 * 5
        assert lines[2].split()[:3] == ["logit", "a", "basic"]

    def test_unknown_row_of_report_raises(self, report):
        with pytest.raises(KeyError, match=r"there is no row for the estimator 'none'"):
            report.row("none")

    def test_control_variate_beats_rao_blackwell_if_elbo_is_far_from_0(self):
        def unlikely():
            z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.3)))
            pyro.sample("x", dist.Normal(z, 0.1), obs=torch.tensor(5.0))

        def one_logit():
            pyro.sample("z", dist.Bernoulli(logits=pyro.param("logit", torch.tensor(0.4))))

        found = variance_report(unlikely, one_logit, num_samples=20, num_particles=8, vectorize_particles=True)
        assert found.row(CONTROL_VARIATE).variance.high < found.row(RAO_BLACKWELL).variance.low


class TestASuggestedNumberOfParticles:
    def test_suggested_num_particles_reaches_target_snr(self):
        estimators = {RAO_BLACKWELL: default_estimators(2, True)[RAO_BLACKWELL]}
        few = variance_report(
            model, guide, num_samples=100, num_particles=2, estimators=estimators, target_snr=2.0, num_warmup=0
        )
        needed = few.row(RAO_BLACKWELL).num_particles_needed
        estimators = {RAO_BLACKWELL: default_estimators(needed, True)[RAO_BLACKWELL]}
        reached = variance_report(
            model, guide, num_samples=100, num_particles=needed, estimators=estimators, num_warmup=0
        )
        assert reached.row(RAO_BLACKWELL).signal_to_noise == pytest.approx(2, rel=0.25)

    def test_no_num_particles_is_suggested_at_optimum(self):
        def optimal_guide():
            p = torch.sigmoid(pyro.param("logit", torch.tensor(math.log(0.3 / 0.7))))
            pyro.sample("z", dist.Bernoulli(p))

        found = variance_report(
            lambda: pyro.sample("z", dist.Bernoulli(torch.tensor(0.3))), optimal_guide, num_samples=20
        )
        assert all(row.num_particles_needed is None for row in found.rows if row.variance.value > 1e-20)


class TestTheParameters:
    def test_parameters_are_found_in_modules_and_param_store(self):
        class Guide(PyroModule):
            def __init__(self):
                super().__init__()
                self.mean = nn.Parameter(torch.zeros(2))
                self.sd = PyroParam(torch.tensor(0.5), constraint=constraints.positive)

            def forward(self):
                scale = self.sd * pyro.param("factor", torch.tensor(1.0))
                pyro.sample("z", NonreparameterizedNormal(self.mean, scale).to_event(1))

        def normal():
            pyro.sample("z", dist.Normal(torch.ones(2), 1.0).to_event(1))

        pyro.param("mean", torch.tensor(3.0))  # another one's
        own = Guide()
        found = variance_report(normal, own, num_samples=20, num_particles=2)
        assert {row.parameter for row in found.rows} == {"mean", "sd_unconstrained", "factor", ALL}
        assert found.row(RAO_BLACKWELL, "mean").variance.value > 0
        assert own.mean.grad is None

    def test_parameters_without_variance_have_no_reduction(self):
        def idle():
            guide()
            pyro.param("idle", torch.zeros(2))

        found = variance_report(model, idle, num_samples=20, num_particles=2)
        assert math.isnan(found.row(RAO_BLACKWELL, "idle").reduction.value)
        assert "nan" not in str(found)

    def test_guide_without_parameters_raises(self):
        with pytest.raises(ValueError, match=r"^the guide has no parameters"):
            variance_report(one_bit, one_bit, num_samples=20)


def one_bit():
    pyro.sample("z", dist.Bernoulli(torch.tensor(0.3)))


class TestTheEstimators:
    def test_estimators_use_same_particles(self):
        pair = {"one": Trace_ELBO(2), "same": Trace_ELBO(2)}
        found = variance_report(model, guide, num_samples=20, num_particles=2, estimators=pair)
        assert found.row("same").reduction == (1, 1, 1)

    def test_report_preserves_random_state(self):
        torch.manual_seed(3)
        one = variance_report(model, guide, num_samples=20, num_particles=2)
        after = torch.rand(())
        torch.manual_seed(3)
        torch.randint(2**62, (40,))
        assert torch.rand(()) == after
        torch.manual_seed(3)
        assert variance_report(model, guide, num_samples=20, num_particles=2).rows == one.rows

    @pytest.mark.parametrize(
        "options",
        [{"num_samples": 19}, {"num_samples": 20.5}, {"num_warmup": -1}, {"target_snr": 0.0}, {"num_particles": 0}],
        ids=str,
    )
    def test_invalid_options_of_report_raise(self, options):
        (name,) = options
        with pytest.raises(ValueError, match=rf"^{name} must be (a whole number of|above 0)"):
            variance_report(model, guide, **options)


ONE = Estimate(1.0, 1.0, 1.0)
FIRST = VarianceRow(ALL, "basic", Estimate(2000.0, 1500.0, 2500.0), ONE, 0.05, 1600)
SECOND = VarianceRow("loc", "basic", Estimate(0.5, 0.4, 0.6), ONE, math.nan, None)


@pytest.fixture
def table():
    return VarianceReport(
        (FIRST, SECOND), num_particles=4, num_samples=100, target_snr=1.0, skipped={"optimal": "it is too few"}
    )


def test_row_is_found_by_estimator_and_parameter(table):
    assert table.row("basic") is FIRST
    assert table.row("basic", "loc") is SECOND


@pytest.mark.parametrize("asked", [("none",), ("basic", "scale")])
def test_missing_row_raises_key_error_that_names_it(table, asked):
    with pytest.raises(KeyError, match=rf"no row for the estimator '{asked[0]}'"):
        table.row(*asked)


def test_report_is_printed_as_aligned_table(table):
    title, heads, first, second, remark = str(table).splitlines()
    assert title.startswith("variance of the ELBO's gradient with 4 particles, 100 estimates each")
    assert {line.index(cell) for line, cell in zip((heads, first, second), ("SNR", "0.05", "–"), strict=True)} == {
        heads.index("SNR")
    }
    assert first.endswith("1,600")
    assert second.endswith("no signal")
    assert remark == "skipped: optimal: it is too few"
