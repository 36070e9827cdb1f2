import pytest

from zoo.control.schedules import Schedule


@pytest.mark.parametrize(("shape", "halfway"), [("linear", 0.505), ("geometric", 0.1)])
def test_schedule_moves_from_initial_to_final_value_and_stays_there(shape, halfway):
    schedule = Schedule(1.0, 0.01, steps=10, shape=shape)
    assert schedule(0) == 1
    assert schedule(5) == pytest.approx(halfway)
    assert schedule(10) == schedule(1000) == 0.01


def test_schedule_without_steps_starts_at_the_final_value():
    assert Schedule(1.0, 0.5, steps=0)(0) == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": "cubic"}, "no schedule 'cubic'"),
        ({"steps": -1}, "must be 0 or more"),
        ({"final": 0.0, "shape": "geometric"}, "needs positive values"),
    ],
)
def test_invalid_schedule_raises(options, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**{"initial": 1.0, "final": 0.1, "steps": 10, **options})
