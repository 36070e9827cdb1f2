import pytest

from zoo.reproduction._report import copy_record, find_run, load_records, table
from zoo.reproduction._summaries import median_and_max, percent
from zoo.reproduction._tables import MetricColumn, Paper, Row, chosen_rows

PAPER = Paper(
    title="A paper",
    columns=("proceedings", "preprint"),
    rows=(
        Row(
            "6",
            "six glimpses",
            "six",
            "mnist",
            {"proceedings": "1.12", "preprint": "1.29"},
            best_public_reproduction="0.67",
        ),
        Row("7", "seven glimpses", "seven", "mnist", {"proceedings": "1.07", "preprint": "1.47"}),
        Row("random", "a control", "six_random", "mnist"),
    ),
    metrics=(MetricColumn("ours", "test_error", percent),),
)


class TestFindRun:
    def test_no_run_is_found_without_runs(self, tmp_path):
        assert find_run(tmp_path / "runs", "wanted") is None

    def test_finished_run_is_preferred_to_one_that_can_be_resumed(self, leave_run, tmp_path, make_record):
        leave_run("a", state="interrupted")
        finished = leave_run("b", state="finished")
        leave_run("c", state="running")
        assert find_run(tmp_path / "runs", "wanted") == (finished, make_record())

    @pytest.mark.parametrize("state", ["interrupted", "running", "failed"])
    def test_run_that_can_be_resumed_is_found(self, state, leave_run, tmp_path):
        leave_run("a", state=state, checkpoint=False)
        stopped = leave_run("b", state=state)
        assert find_run(tmp_path / "runs", "wanted")[0] == stopped

    def test_other_configurations_and_runs_without_checkpoint_are_ignored(self, leave_run, tmp_path):
        leave_run("a", config_hash="other")
        leave_run("b", state="failed", checkpoint=False)
        assert find_run(tmp_path / "runs", "wanted") is None

    def test_damaged_record_is_an_error_that_names_it(self, leave_run, tmp_path):
        (leave_run("a") / "status.json").write_text("{")
        with pytest.raises(ValueError, match=r"a/status\.json is damaged"):
            find_run(tmp_path / "runs", "wanted")


class TestKeptRecords:
    def test_kept_records_are_those_of_a_row_one_per_seed(self, leave_run, tmp_path):
        for seed, error in ((1, 0.01), (2, 0.02)):
            copy_record(leave_run(f"run{seed}", error=error), tmp_path / "results", f"six-seed{seed}")
        copy_record(leave_run("control", error=0.5), tmp_path / "results", "six_random-seed1")
        errors = {
            row.name: [run["metrics"]["test_error"] for run in load_records(tmp_path / "results", row)]
            for row in PAPER.rows
        }
        assert errors == {"6": [0.01, 0.02], "7": [], "random": [0.5]}

    @pytest.mark.parametrize("data", ["mnist-5k", None])
    def test_record_on_other_data_is_an_error(self, data, leave_run, tmp_path):
        copy_record(leave_run("a", data=data), tmp_path / "results", "six-seed1")
        with pytest.raises(ValueError, match=rf"six-seed1\.json is the record of a run on {data}, not on .* mnist"):
            load_records(tmp_path / "results", PAPER.rows[0])

    def test_records_of_different_recipes_are_an_error(self, leave_run, tmp_path):
        for seed, recipe in ((1, "old"), (2, "new")):
            copy_record(leave_run(f"run{seed}", recipe_hash=recipe), tmp_path / "results", f"six-seed{seed}")
        with pytest.raises(
            ValueError, match=r"six-seed\*\.json are of different configurations, and cannot be averaged"
        ):
            load_records(tmp_path / "results", PAPER.rows[0])


class TestChosenRows:
    def test_all_rows_or_the_named_ones_are_chosen(self):
        assert chosen_rows(PAPER, None) == list(PAPER.rows)
        assert [row.name for row in chosen_rows(PAPER, ["random", "6"])] == ["random", "6"]

    def test_unknown_row_is_reported_with_the_known_ones(self):
        with pytest.raises(ValueError, match="there is no row '8'; there are: 6, 7, random"):
            chosen_rows(PAPER, ["6", "8"])


class TestTable:
    def test_table_shows_published_values_best_reproduction_and_ours_in_percent(self, make_record):
        runs = {"6": [make_record(0.007, 1500), make_record(0.008, 2100)], "random": [make_record(0.05, 30)]}
        assert table(PAPER, runs).splitlines() == [
            "|  | proceedings | preprint | best public | ours | seeds | minutes per seed |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            "| six glimpses | 1.12 | 1.29 | 0.67 | 0.75 ± 0.64 | 2 | 30 |",
            "| a control |  |  |  | 5.00 | 1 | 0.5 |",
        ]

    def test_omitted_metrics_of_a_row_are_empty(self, make_record):
        steps = MetricColumn("steps", "env_steps_to_solved", median_and_max)
        rows = (
            Row("a", "A", "a", "Acrobot-v1", omitted_metrics=("env_steps_to_solved",)),
            Row("b", "B", "b", "CartPole-v1"),
        )
        runs = {"a": [make_record(0.02)], "b": [make_record(0.01)]}
        assert table(Paper("Control", rows, (steps, *PAPER.metrics)), runs).splitlines()[2:] == [
            "| A |  | 2.00 | 1 | 1 |",
            "| B | never; never | 1.00 | 1 | 1 |",
        ]

    def test_table_shows_several_metrics_and_never_for_a_missing_one(self, make_record):
        steps = MetricColumn("steps", "env_steps_to_solved", median_and_max)
        paper = Paper("Control", (Row("a", "A", "a", "CartPole-v1"),), (steps, *PAPER.metrics))
        runs = [make_record(), make_record(), make_record()]
        for run, count in zip(runs, (10_000.0, 20_000.0), strict=False):
            run["metrics"]["env_steps_to_solved"] = count
        assert table(paper, {"a": runs}).splitlines() == [
            "|  | steps | ours | seeds | minutes per seed |",
            "| --- | --- | --- | --- | --- |",
            "| A | 20,000; never | 1.00 ± 0.00 | 3 | 1 |",
        ]
