from zoo.inference._batch import RepeatedBatch


def test_each_step_yields_all_arguments():
    steps = RepeatedBatch((1, "a"), 3)
    assert len(steps) == 3
    assert list(steps) == [(1, "a")] * 3


def test_restored_pass_yields_remaining_steps_and_the_next_is_whole():
    steps, other = RepeatedBatch((1,), 5), RepeatedBatch((1,), 5)
    passed = iter(steps)
    next(passed), next(passed)
    other.load_state_dict(steps.state_dict())
    assert len(list(other)) == 3
    assert len(list(other)) == 5


def test_state_after_last_step_starts_new_epoch():
    steps, other = RepeatedBatch((1,), 5), RepeatedBatch((1,), 5)
    list(steps)
    other.load_state_dict(steps.state_dict())
    assert len(list(other)) == 5
