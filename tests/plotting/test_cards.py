import pytest

from zoo.plotting.cards import draw_episodes, verdict
from zoo.plotting.episodes import checked_episodes


@pytest.fixture
def episodes(looks):
    return checked_episodes(**looks)


def texts(figure):
    return [text.get_text() for text in figure.texts]


def test_a_right_answer_and_a_wrong_one_differ_in_more_than_colour(episodes):
    right, wrong = verdict(episodes, 0, 2), verdict(episodes, 2, 2)
    assert right[0] == "✓ zero (70 %)"
    assert wrong[0] == "✗ two (70 %), but it is three"
    assert right[1] != wrong[1]


def test_there_is_no_verdict_before_the_last_glimpse(episodes):
    assert verdict(episodes, 0, 1)[0] == "three (70 %) …"


def test_each_picture_has_its_verdict(episodes):
    assert [text for text in texts(draw_episodes(episodes, 2)) if text[0] in "✓✗"] == [
        "✓ zero (70 %)",
        "✓ one (70 %)",
        "✗ two (70 %), but it is three",
    ]


def test_nothing_moves_from_one_glimpse_to_the_next(episodes):
    first, second = draw_episodes(episodes, 1), draw_episodes(episodes, 2)
    assert first.get_size_inches().tolist() == second.get_size_inches().tolist()
    assert [axes.get_position().bounds for axes in first.axes] == [axes.get_position().bounds for axes in second.axes]


def test_only_the_glimpses_so_far_are_drawn(episodes):
    for shown in (1, 2):
        path, _, beliefs, numbers = draw_episodes(episodes, shown).axes[:4]
        assert len(path.patches) == shown
        assert beliefs.collections[0].get_array().shape == (4, shown)
        assert [text.get_text() for text in numbers.texts] == ["1", "2"][:shown]


def test_several_scales_are_not_called_all_that_was_seen(looks, episodes):
    assert "what it has seen" in texts(draw_episodes(episodes, 2))
    coarse = checked_episodes(**looks | {"sides": (8, 16)})
    assert "what it has seen" not in texts(draw_episodes(coarse, 2))
    assert "seen in full detail" in texts(draw_episodes(coarse, 2))
