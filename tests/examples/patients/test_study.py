import pytest
import torch

from examples.patients import FactorFamily
from examples.patients.comparison import PAPER_ORDER, reference
from examples.patients.fitting import Fitting
from examples.patients.study import FAMILIES, average_in_parts, cached, load_prediction, run_key, study

SMALL = FactorFamily(series=False, positive=True, factors=2)


def test_the_models_are_the_papers_in_its_order():
    assert tuple(FAMILIES) == PAPER_ORDER


def test_what_is_shown_of_a_patient_helps_to_predict_the_rest(split):
    short, long = (
        study(SMALL, split, Fitting(steps, particles=4), Fitting(steps, particles=4), seed=1) for steps in (1, 100)
    )
    assert long["per_lab"] > short["per_lab"] + 0.1
    assert long["labs"] == split.held_out.observed.sum((1, 2)).tolist()
    assert load_prediction(long).per_lab.item() == pytest.approx(long["per_lab"], rel=1e-5)
    assert load_prediction(long).labs.tolist() == reference(split.train, split.held_out, False).labs.tolist()


def test_held_out_labs_are_never_looked_at_in_the_fits(split):
    settings = Fitting(3), Fitting(3)
    other = split._replace(held_out=split.held_out._replace(values=split.held_out.values + 1))
    one, two = (study(SMALL, each, *settings, seed=1) for each in (split, other))
    assert (one["bounds"], one["shown_bounds"]) == (two["bounds"], two["shown_bounds"])
    assert one["per_lab"] != two["per_lab"]
    less = split._replace(shown=split.shown.restrict_observed(torch.zeros_like(split.shown.observed)))
    assert study(SMALL, less, *settings, seed=1)["shown_bounds"] != one["shown_bounds"]


def test_a_seed_makes_the_same_study_again(split):
    one, again, other = (study(SMALL, split, Fitting(3), Fitting(2), seed) for seed in (1, 1, 2))
    assert one["log_likelihood"] == again["log_likelihood"] != other["log_likelihood"]


def test_a_fit_is_told_in_twenty_parts_or_fewer():
    assert average_in_parts([1.0, 2.0]) == [1.0, 2.0]
    assert len(average_in_parts([1.0] * 105)) == 20


def test_a_fit_with_other_settings_or_labs_is_another(split):
    wanted = run_key(split, Fitting(3), seed=1)
    assert run_key(split, Fitting(3), seed=1) == wanted
    moved = split._replace(train=split.train._replace(values=split.train.values + 1))
    for other in (
        run_key(split, Fitting(4), seed=1),
        run_key(split, Fitting(3), seed=2),
        run_key(moved, Fitting(3), seed=1),
    ):
        assert other != wanted


def test_a_damaged_record_is_an_error_that_says_where(tmp_path):
    path = tmp_path / "fit.json"
    path.write_text('{"wanted": ')
    with pytest.raises(ValueError, match=r"fit\.json is damaged .*; delete it and run again"):
        cached(path, {}, dict)
