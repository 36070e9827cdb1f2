from zoo.control._module import EpochMeans


def test_interrupted_epoch_has_the_same_means_as_an_uninterrupted_one():
    rows = [
        ({"loss": float(i), "rare": 2.0 * i} if i % 2 else {"loss": float(i)}, {"return": 10.0 * i}) for i in range(5)
    ]
    whole, first, second = EpochMeans(), EpochMeans(), EpochMeans()
    for row in rows:
        whole.update(*row)
    for row in rows[:3]:
        first.update(*row)
    second.load_state_dict(first.state_dict())
    for row in rows[3:]:
        second.update(*row)
    assert second.compute_and_reset() == whole.compute_and_reset() == {"loss": 2.0, "rare": 4.0, "return": 40.0}


def test_saved_state_of_epoch_means_does_not_change_with_later_updates():
    means = EpochMeans()
    means.update({"loss": 1.0}, {})
    state = means.state_dict()
    means.update({"loss": 3.0}, {})
    assert state == {"sums": {"loss": [1.0, 1]}, "latest": {}}
