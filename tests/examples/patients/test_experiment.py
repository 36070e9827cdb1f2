import csv

import pytest

from examples.patients import experiment
from examples.patients.comparison import PAPER_ORDER
from examples.patients.experiment import Budget, compare_models, run_sampler_benchmark
from examples.patients.sampler_benchmark import Curve

BUDGET = Budget(training=2, inference=1)


def test_four_models_and_two_references_are_compared(split, tmp_path, capsys):
    found = compare_models(split, [1, 2], BUDGET, tmp_path)
    assert list(found["per_lab"]) == [*PAPER_ORDER, "normal", "log_normal"]
    assert len(found["differences"]) == 6
    assert (found["patients"], found["held_out_labs"]) == (10, int(split.held_out.observed.sum()))
    one, other = found["per_lab_of_seeds"]["gamma_gamma"]
    assert found["per_lab"]["gamma_gamma"]["estimate"] == pytest.approx((one + other) / 2, rel=1e-5)
    assert found["found"][-1].startswith("the paper's ordering is ")
    assert "gamma_normal, seed 2: step 2 of 2, ELBO " in capsys.readouterr().out
    with (tmp_path / "models.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    total = sum(float(row["gamma_gamma"]) for row in rows) / sum(int(row["held_out_labs"]) for row in rows)
    assert total == pytest.approx(found["per_lab"]["gamma_gamma"]["estimate"])


def test_finished_fit_is_reused_only_with_the_same_settings(split, tmp_path, monkeypatch):
    first = compare_models(split, [1], BUDGET, tmp_path)
    made = []
    fitted = experiment.study
    monkeypatch.setattr(experiment, "study", lambda *args: made.append(args[0].name) or fitted(*args))
    (tmp_path / "fits" / "gamma_gamma-seed1.json").unlink()
    again = compare_models(split, [1], BUDGET, tmp_path)
    assert made == ["gamma_gamma"]
    assert again["per_lab"] == first["per_lab"]
    compare_models(split, [1], BUDGET._replace(inference=2), tmp_path)
    assert made == ["gamma_gamma", *PAPER_ORDER]


def test_curves_are_cached_and_plotted(split, tmp_path, monkeypatch):
    runs = []

    def method(family, split, seconds, seed):
        runs.append((family.name, seconds, seed))
        return Curve([1.0, 9.0], [-5.0, -2.0], 0.0, 7)

    monkeypatch.setattr(experiment, "METHODS", {"one": method, "another": method})
    found = run_sampler_benchmark(split, 3, 0.5, tmp_path)
    assert found["found"][0] == "one: -2.000 nats per held-out lab after 9 s and 7 steps; best -2.000 after 9 s"
    assert (tmp_path / "curve.png").is_file()
    assert len((tmp_path / "curve.csv").read_text().splitlines()) == 5
    assert run_sampler_benchmark(split, 3, 0.5, tmp_path) == found
    assert runs == [("gamma_normal_ts", 30.0, 3)] * 2
    run_sampler_benchmark(split, 3, 1.0, tmp_path)
    assert len(runs) == 4


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan"), float("inf")])
def test_minutes_must_be_positive(split, tmp_path, minutes):
    with pytest.raises(ValueError, match="minutes must be a positive number"):
        run_sampler_benchmark(split, 1, minutes, tmp_path)
