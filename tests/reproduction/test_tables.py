import pytest

from zoo.cli._command_line import read_command_line
from zoo.cli._composition import check_settings, register
from zoo.cli._config_groups import group_choices
from zoo.reproduction._tables import PAPERS, settings_of


@pytest.mark.parametrize("name", PAPERS)
class TestPapers:
    def test_rows_have_unique_names_and_existing_experiments(self, name):
        rows = PAPERS[name].rows
        assert len({row.name for row in rows}) == len({row.experiment for row in rows}) == len(rows)
        assert {row.experiment for row in rows} <= set(group_choices("experiment"))

    def test_published_values_belong_to_a_column(self, name):
        assert all(row.published.keys() <= set(PAPERS[name].columns) for row in PAPERS[name].rows)

    def test_omitted_metrics_are_columns_of_the_table(self, name):
        shown = {figure.metric for figure in PAPERS[name].metrics}
        assert all(set(row.omitted_metrics) < shown for row in PAPERS[name].rows)

    def test_rows_train_on_the_paper_s_data_with_different_configurations(self, name, composed):
        models = []
        for row in PAPERS[name].rows:
            config = composed([f"experiment={row.experiment}"])
            if config["data"] is None:
                assert (config["env"] or config["program"]) == row.data
            else:
                data = row.data.replace("-", "_")
                assert config["data"]["_target_"] == f"zoo.data.{data}.load_{data}"
            models.append((config["model"], config["env"], config["program"], config["estimator"]))
        assert all(models.count(model) == 1 for model in models)


class TestRAM:
    def test_ram_rows_have_the_options_of_their_labels(self, composed):
        for row in PAPERS["ram"].rows:
            model = composed([f"experiment={row.experiment}"])["model"]
            assert (model["patch_size"], model["num_scales"]) == (8, 1)
            if row.name.isdigit():
                assert (model["num_glimpses"], model["location_policy"]) == (int(row.name), "learned")
            else:
                assert (model["num_glimpses"], model["location_policy"]) == (6, row.name)


def test_smoke_overrides_are_options_of_every_experiment():
    register()
    first = {row.experiment.split("_")[0]: row for paper in PAPERS.values() for row in paper.rows}
    for row in (*first.values(), *PAPERS["captioning"].rows):
        check_settings(read_command_line(settings_of(row, "smoke")))
    for row in (row for paper in PAPERS.values() for row in paper.rows):
        assert len(settings_of(row, "smoke")) > len(settings_of(row, "full")) == 1
