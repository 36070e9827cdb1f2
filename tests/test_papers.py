import math
import statistics

import pytest

from zoo.composition import options
from zoo.papers import PAPERS, mean_and_interval


class TestInterval:
    # 97.5 % quantiles of Student's t, from a printed table.
    @pytest.mark.parametrize(("count", "t"), [(2, 12.706), (3, 4.303), (5, 2.776), (10, 2.262), (31, 2.042)])
    def test_the_interval_is_student_s(self, count, t):
        values = [0.5 + 0.1 * i * (-1) ** i for i in range(count)]
        half = t * statistics.stdev(values) / math.sqrt(count)
        mean, shown = mean_and_interval(values).split(" ± ")
        assert float(mean) == pytest.approx(statistics.mean(values), abs=0.0051)
        assert float(shown) == pytest.approx(half, abs=0.0051 + 1e-4 * half)

    def test_a_single_seed_has_no_interval(self):
        assert mean_and_interval([0.7]) == "0.70"


@pytest.mark.parametrize("name", PAPERS)
class TestPapers:
    def test_every_row_names_an_experiment_and_itself_once(self, name):
        rows = PAPERS[name].rows
        assert len({row.name for row in rows}) == len({row.experiment for row in rows}) == len(rows)
        assert {row.experiment for row in rows} <= set(options("experiment"))

    def test_every_published_figure_stands_in_a_named_table(self, name):
        assert all(row.published.keys() <= set(PAPERS[name].columns) for row in PAPERS[name].rows)

    def test_only_figures_that_are_shown_are_left_out_of_a_row(self, name):
        shown = {figure.metric for figure in PAPERS[name].figures}
        assert all(set(row.without) < shown for row in PAPERS[name].rows)

    def test_every_row_trains_on_the_paper_s_data_with_a_configuration_of_its_own(self, name, composed):
        models = []
        for row in PAPERS[name].rows:
            config = composed([f"experiment={row.experiment}"])
            if config["data"] is None:
                assert config["env"] == row.data
            else:
                assert config["data"]["_target_"] == f"zoo.data.{row.data}.load_{row.data}"
            models.append((config["model"], config["env"], config["estimator"]))
        assert all(models.count(model) == 1 for model in models)


class TestRam:
    def test_the_rows_are_what_their_labels_say(self, composed):
        for row in PAPERS["ram"].rows:
            model = composed([f"experiment={row.experiment}"])["model"]
            assert (model["glimpse_size"], model["scales"]) == (8, 1)
            if row.name.isdigit():
                assert (model["glimpses"], model["gaze"]) == (int(row.name), "learned")
            else:
                assert (model["glimpses"], model["gaze"]) == (6, row.name)
