import pytest
import torch

from examples.patients import FactorFamily
from examples.patients.comparison import PAPER_ORDER, reference
from examples.patients.fitting import Fitting
from examples.patients.study import FAMILIES, average_in_parts, cached, load_prediction, run_key, study

SMALL = FactorFamily(series=False, positive=True, factors=2)


def test_models_are_those_of_the_paper_in_its_order():
    assert tuple(FAMILIES) == PAPER_ORDER


def test_shown_labs_improve_the_prediction_of_held_out_ones(split):
    short, long = (
        study(SMALL, split, Fitting(steps, particles=4), Fitting(steps, particles=4), seed=1) for steps in (1, 100)
    )
    assert long["per_lab"] > short["per_lab"] + 0.1
    assert long["labs"] == split.held_out.observed.sum((1, 2)).tolist()
    assert load_prediction(long).per_lab.item() == pytest.approx(long["per_lab"], rel=1e-5)
    assert load_prediction(long).labs.tolist() == reference(split.train, split.held_out, False).labs.tolist()


def test_fits_do_not_use_held_out_labs(split):
    settings = Fitting(3), Fitting(3)
    other = split._replace(held_out=split.held_out._replace(values=split.held_out.values + 1))
    one, two = (study(SMALL, each, *settings, seed=1) for each in (split, other))
    assert (one["bounds"], one["shown_bounds"]) == (two["bounds"], two["shown_bounds"])
    assert one["per_lab"] != two["per_lab"]
    less = split._replace(shown=split.shown.restrict_observed(torch.zeros_like(split.shown.observed)))
    assert study(SMALL, less, *settings, seed=1)["shown_bounds"] != one["shown_bounds"]


def test_study_is_reproducible(split):
    one, again, other = (study(SMALL, split, Fitting(3), Fitting(2), seed) for seed in (1, 1, 2))
    assert one["log_likelihood"] == again["log_likelihood"] != other["log_likelihood"]


def test_bounds_are_averaged_in_at_most_twenty_parts():
    assert average_in_parts([1.0, 2.0]) == [1.0, 2.0]
    assert len(average_in_parts([1.0] * 105)) == 20


def test_key_of_a_run_depends_on_settings_and_labs(split):
    wanted = run_key(split, Fitting(3), seed=1)
    assert run_key(split, Fitting(3), seed=1) == wanted
    moved = split._replace(train=split.train._replace(values=split.train.values + 1))
    for other in (
        run_key(split, Fitting(4), seed=1),
        run_key(split, Fitting(3), seed=2),
        run_key(moved, Fitting(3), seed=1),
    ):
        assert other != wanted


def test_damaged_record_raises_with_its_path(tmp_path):
    path = tmp_path / "fit.json"
    path.write_text('{"wanted": ')
    with pytest.raises(ValueError, match=r"fit\.json is damaged .*; delete it and run again"):
        cached(path, {}, dict)
