import pytest

from zoo.control.schedules import Schedule


@pytest.mark.parametrize(("shape", "halfway"), [("linear", 0.505), ("geometric", 0.1)])
def test_goes_from_one_value_to_the_other_and_stays(shape, halfway):
    schedule = Schedule(1.0, 0.01, steps=10, shape=shape)
    assert schedule(0) == 1
    assert schedule(5) == pytest.approx(halfway)
    assert schedule(10) == schedule(1000) == 0.01


def test_without_a_way_it_is_at_the_end_at_once():
    assert Schedule(1.0, 0.5, steps=0)(0) == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": "cubic"}, "no schedule 'cubic'"),
        ({"steps": -1}, "must be 0 or more"),
        ({"final": 0.0, "shape": "geometric"}, "needs positive values"),
    ],
)
def test_what_makes_no_schedule_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**{"initial": 1.0, "final": 0.1, "steps": 10, **options})
