"""The table of a variance report."""

import math

import pytest

from zoo._stats import Estimate
from zoo.inference.diagnostics.variance_table import ALL, VarianceReport, VarianceRow

ONE = Estimate(1.0, 1.0, 1.0)
FIRST = VarianceRow(ALL, "basic", Estimate(2000.0, 1500.0, 2500.0), ONE, 0.05, 1600)
SECOND = VarianceRow("loc", "basic", Estimate(0.5, 0.4, 0.6), ONE, math.nan, None)


@pytest.fixture
def table():
    return VarianceReport(
        (FIRST, SECOND), num_particles=4, num_samples=100, target_snr=1.0, skipped={"optimal": "it is too few"}
    )


def test_a_row_is_found_by_estimator_and_parameter(table):
    assert table.row("basic") is FIRST
    assert table.row("basic", "loc") is SECOND


@pytest.mark.parametrize("asked", [("none",), ("basic", "scale")])
def test_a_row_that_is_not_there_is_named(table, asked):
    with pytest.raises(KeyError, match=rf"no row for the estimator '{asked[0]}'"):
        table.row(*asked)


def test_it_is_written_with_columns_that_stand_below_each_other(table):
    title, heads, first, second, remark = str(table).splitlines()
    assert title.startswith("variance of the ELBO's gradient with 4 particles, 100 estimates each")
    assert {line.index(cell) for line, cell in zip((heads, first, second), ("SNR", "0.05", "–"), strict=True)} == {
        heads.index("SNR")
    }
    assert first.endswith("1,600")
    assert second.endswith("no signal")
    assert remark == "skipped: optimal: it is too few"
