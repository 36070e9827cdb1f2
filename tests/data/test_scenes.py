import numpy as np
import pytest

from zoo.data._scenes import CELL, COLORS, DIGITS, GRID, LAYOUTS, SHAPES, Scenes, draw_scenes, sample_scenes

BLANK = np.zeros((10, 28, 28), dtype=np.uint8)


def scene_of(name, color="white", cell=(3, 3)):
    return Scenes(
        np.array([1]),
        np.array([cell]),
        np.array([tuple(COLORS).index(color)]),
        np.array([(SHAPES + DIGITS).index(name)]),
    )


def draw(scenes, digits=BLANK, seed=0):
    return draw_scenes(np.random.default_rng(seed), scenes, digits, np.arange(10))


def covered(name, seed):
    """Which pixels of its cell an object covers."""
    images, _ = draw(scene_of(name), seed=seed)
    return images[0, :, 3 * CELL : 4 * CELL, 3 * CELL : 4 * CELL].min(0) > 100


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", SHAPES)
def test_shape_has_the_features_of_its_name(name, seed):
    mask = covered(name, seed)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    inside = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert min(inside.shape) >= 7
    assert max(inside.shape) <= 12
    corners = inside[[0, 0, -1, -1], [0, -1, 0, -1]]
    quarter = inside[len(inside) // 4, inside.shape[1] // 4]
    widths = inside.sum(1)
    features = corners.tolist(), bool(quarter), bool(widths[1] < widths[-2] / 2), bool(inside.mean() > 0.7)
    none = [False] * 4
    assert (
        features
        == {
            "square": ([True] * 4, True, False, True),
            "circle": (none, True, False, True),
            "triangle": (corners.tolist(), bool(quarter), True, False),
            "diamond": (none, bool(quarter), False, False),
            "cross": (none, False, False, False),
        }[name]
    )
    if name == "diamond":
        assert widths[2] < widths[len(widths) // 2]
        assert quarter or inside.mean() < 0.65


@pytest.mark.parametrize("label", range(10))
def test_object_with_the_name_of_a_digit_is_drawn_from_a_digit_of_that_label(label):
    digits = BLANK.copy()
    digits[label, 8:20, 8:20] = 255
    for other, name in enumerate(DIGITS):
        images, boxes = draw(scene_of(name), digits)
        is_bright = images[0].min(0)[3 * CELL : 4 * CELL, 3 * CELL : 4 * CELL].max() > 170
        assert is_bright == (other == label)
        if is_bright:
            top, left, bottom, right = boxes[0] - 3 * CELL
            assert 5 <= bottom - top <= 7
            assert 5 <= right - left <= 7


def test_digit_keeps_its_orientation():
    digits = BLANK.copy()
    digits[7, 4:8, 4:24] = 255  # a bar on top, and one on the right
    digits[7, 4:24, 20:24] = 255
    for seed in range(5):
        images, (box,) = draw(scene_of("seven"), digits, seed)
        top, left, bottom, right = box
        pixels = images[0].min(0)[top:bottom, left:right] > 120
        assert pixels[0].all()
        assert pixels[:, -1].all()
        assert not pixels[3:, :-3].any()


@pytest.mark.parametrize("cell", [(0, 0), (0, 6), (6, 0), (2, 5)])
def test_object_is_drawn_in_its_cell_and_its_box_is_there(cell):
    images, (box,) = draw(scene_of("square", "yellow", cell))
    rows, columns = np.nonzero(images[0, 0] > 180)  # the ground has at most 83 of red, a dot 159
    found = np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])
    assert abs(found - box).max() <= 1  # a pixel half of which is covered may be darker
    assert (box // CELL).tolist()[:2] == list(cell)


def test_ground_shows_where_a_cell_is():
    images, _ = draw(Scenes(np.zeros(20, dtype=int), np.zeros((0, 2), dtype=int), *np.zeros((2, 0), dtype=int)))
    cells = np.median(images.reshape(20, 3, GRID, CELL, GRID, CELL), axis=(3, 5))
    red, blue = cells[:, 0], cells[:, 2]
    assert (np.diff(red, axis=2) > 2).all()  # lighter to the right
    assert (np.diff(blue, axis=1) > 2).all()  # lighter to the bottom


def test_layouts_are_all_decidable_ones():
    assert len(LAYOUTS[1]) == 49
    pairs = {((a, b), (c, d)) for a in range(7) for c in range(7) for b in range(7) for d in range(7)}
    expected = {(first, second) for first, second in pairs if second[0] - first[0] >= 2}
    expected = {pair for pair in expected if pair[1][0] - pair[0][0] != abs(pair[1][1] - pair[0][1])}
    assert set(LAYOUTS[2]) == expected
    assert all({layout[:2], layout[1:]} <= expected for layout in LAYOUTS[3])


def test_numbers_colors_and_names_are_sampled_uniformly():
    scenes = sample_scenes(np.random.default_rng(0), 6000)
    objects = scenes.counts.sum()
    assert len(scenes.cells) == len(scenes.colors) == len(scenes.names) == objects
    shapes = np.bincount(scenes.names, minlength=15) / objects
    # Five standard deviations of a fraction p of 12,000 objects are 0.046 √(p (1 - p)).
    np.testing.assert_allclose(np.bincount(scenes.counts)[1:] / 6000, 1 / 3, atol=0.031)
    np.testing.assert_allclose(np.bincount(scenes.colors) / objects, 1 / 7, atol=0.017)
    np.testing.assert_allclose(shapes[:5], 3 / 20, atol=0.017)
    np.testing.assert_allclose(shapes[5:], 1 / 40, atol=0.008)


def test_scenes_beyond_the_size_of_a_chunk_continue_the_first(monkeypatch):
    monkeypatch.setattr("zoo.data._scenes.CHUNK_SIZE", 2)
    scenes = sample_scenes(np.random.default_rng(3), 5)
    scenes = scenes._replace(names=scenes.names % len(SHAPES))
    images, boxes = draw(scenes)
    owners = np.repeat(np.arange(5), scenes.counts)
    for owner, (top, left, bottom, right) in zip(owners, boxes, strict=True):
        assert images[owner, :, top:bottom, left:right].max() > 170
