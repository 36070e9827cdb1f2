from zoo.inference._batch import RepeatedBatch


def test_each_step_has_all_arguments():
    steps = RepeatedBatch((1, "a"), 3)
    assert len(steps) == 3
    assert list(steps) == [(1, "a")] * 3


def test_a_pass_goes_on_where_the_state_was_taken_and_the_next_is_whole():
    steps, other = RepeatedBatch((1,), 5), RepeatedBatch((1,), 5)
    passed = iter(steps)
    next(passed), next(passed)
    other.load_state_dict(steps.state_dict())
    assert len(list(other)) == 3
    assert len(list(other)) == 5


def test_after_the_last_step_a_new_epoch_begins():
    steps, other = RepeatedBatch((1,), 5), RepeatedBatch((1,), 5)
    list(steps)
    other.load_state_dict(steps.state_dict())
    assert len(list(other)) == 5
