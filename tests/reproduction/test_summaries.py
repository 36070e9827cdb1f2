import math
import statistics

import pytest

from zoo.reproduction._summaries import formatted, mean_and_interval


class TestInterval:
    # 97.5 % quantiles of Student's t, from a printed table.
    @pytest.mark.parametrize(("count", "t"), [(2, 12.706), (3, 4.303), (5, 2.776), (10, 2.262), (31, 2.042)])
    def test_interval_is_student_t(self, count, t):
        values = [0.5 + 0.1 * i * (-1) ** i for i in range(count)]
        half = t * statistics.stdev(values) / math.sqrt(count)
        mean, shown = mean_and_interval(values).split(" ± ")
        assert float(mean) == pytest.approx(statistics.mean(values), abs=0.0051)
        assert float(shown) == pytest.approx(half, abs=0.0051 + 1e-4 * half)

    def test_single_seed_has_no_interval(self):
        assert mean_and_interval([0.7]) == "0.70"

    def test_seed_without_the_metric_makes_the_mean_unknown(self):
        assert mean_and_interval([0.7, math.inf]) == "?"


def test_ratios_show_minimum_and_maximum():
    assert [formatted(reduce, ".2f")([0.984, 1.01]) for reduce in (min, max)] == ["0.98", "1.01"]
