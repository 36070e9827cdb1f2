import pytest

from zoo.cli.command_line import read_command_line
from zoo.cli.composition import check_settings, options, register
from zoo.reproduction.tables import PAPERS, settings_of


@pytest.mark.parametrize("name", PAPERS)
class TestPapers:
    def test_every_row_names_an_experiment_and_itself_once(self, name):
        rows = PAPERS[name].rows
        assert len({row.name for row in rows}) == len({row.experiment for row in rows}) == len(rows)
        assert {row.experiment for row in rows} <= set(options("experiment"))

    def test_every_published_figure_stands_in_a_named_table(self, name):
        assert all(row.published.keys() <= set(PAPERS[name].columns) for row in PAPERS[name].rows)

    def test_only_figures_that_are_shown_are_left_out_of_a_row(self, name):
        shown = {figure.metric for figure in PAPERS[name].metrics}
        assert all(set(row.omitted_metrics) < shown for row in PAPERS[name].rows)

    def test_every_row_trains_on_the_paper_s_data_with_a_configuration_of_its_own(self, name, composed):
        models = []
        for row in PAPERS[name].rows:
            config = composed([f"experiment={row.experiment}"])
            if config["data"] is None:
                assert (config["env"] or config["program"]) == row.data
            else:
                assert config["data"]["_target_"] == f"zoo.data.{row.data}.load_{row.data}"
            models.append((config["model"], config["env"], config["program"], config["estimator"]))
        assert all(models.count(model) == 1 for model in models)


class TestRam:
    def test_the_rows_are_what_their_labels_say(self, composed):
        for row in PAPERS["ram"].rows:
            model = composed([f"experiment={row.experiment}"])["model"]
            assert (model["patch_size"], model["num_scales"]) == (8, 1)
            if row.name.isdigit():
                assert (model["num_glimpses"], model["location_policy"]) == (int(row.name), "learned")
            else:
                assert (model["num_glimpses"], model["location_policy"]) == (6, row.name)


def test_smoke_settings_are_options_of_every_experiment():
    register()
    first = {row.experiment.split("_")[0]: row for paper in PAPERS.values() for row in paper.rows}
    for row in first.values():
        check_settings(read_command_line(settings_of(row, "smoke")))
    for row in (row for paper in PAPERS.values() for row in paper.rows):
        assert len(settings_of(row, "smoke")) > len(settings_of(row, "full")) == 1
