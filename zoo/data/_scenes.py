"""Scenes of colored shapes and digits in the cells of a grid: which objects are where, and how they are drawn."""

from itertools import combinations, pairwise, product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

GRID, CELL = 7, 12
SIZE = GRID * CELL
MAX_OBJECTS = 3
COLORS = {
    "red": (230, 50, 45),
    "green": (60, 190, 60),
    "blue": (70, 90, 250),
    "yellow": (235, 220, 50),
    "purple": (190, 60, 220),
    "cyan": (70, 215, 225),
    "white": (240, 240, 240),
}
SHAPES = ("square", "circle", "triangle", "diamond", "cross")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FRACTION_OF_DIGITS = 1 / 4
MAX_DOTS = 4
CHUNK_SIZE = 1000  # images drawn at once
Cell = tuple[int, int]  # row and column


def _has_clear_relations(cells: tuple[Cell, ...]) -> bool:
    """Return whether each object is clearly above the next one, or clearly beside it."""
    steps = [(b[0] - a[0], abs(b[1] - a[1])) for a, b in pairwise(cells)]
    return all(down >= 2 and down != aside for down, aside in steps)


LAYOUTS: dict[int, list[tuple[Cell, ...]]] = {  # by number of objects, all arrangements, each from top to bottom
    count: [
        cells
        for rows in combinations(range(GRID), count)
        for columns in product(range(GRID), repeat=count)
        if _has_clear_relations(cells := tuple(zip(rows, columns, strict=True)))
    ]
    for count in range(1, MAX_OBJECTS + 1)
}


class Scenes(NamedTuple):
    """Objects of some scenes, one after the other."""

    counts: Int[np.ndarray, " scenes"]
    """Number of objects in each scene."""
    cells: Int[np.ndarray, "objects 2"]
    """Row and column."""
    colors: Int[np.ndarray, " objects"]
    names: Int[np.ndarray, " objects"]
    """Index among the shapes and then the digits."""


def sample_scenes(rng: np.random.Generator, count: int) -> Scenes:
    """Sample scenes: number of objects, their arrangement, colors and names, each uniformly."""
    counts = rng.integers(1, MAX_OBJECTS + 1, count)
    uniform = rng.random(count)
    layouts = (LAYOUTS[n][int(u * len(LAYOUTS[n]))] for n, u in zip(counts.tolist(), uniform, strict=True))
    cells = np.array([cell for layout in layouts for cell in layout], dtype=int).reshape(-1, 2)
    is_digit = rng.random(len(cells)) < FRACTION_OF_DIGITS
    shapes = rng.integers(0, len(SHAPES), len(cells))
    digits = len(SHAPES) + rng.integers(0, len(DIGITS), len(cells))
    return Scenes(counts, cells, rng.integers(0, len(COLORS), len(cells)), np.where(is_digit, digits, shapes))


def draw_scenes(
    rng: np.random.Generator, scenes: Scenes, digits: UInt8[np.ndarray, "n 28 28"], labels: Int[np.ndarray, " n"]
) -> tuple[UInt8[np.ndarray, "scenes 3 size size"], Int[np.ndarray, "objects 4"]]:
    """Return the images of scenes, and the box (top, left, bottom, right) of each object."""
    masks = _draw_shapes(rng, scenes.names)
    for label in range(len(DIGITS)):
        chosen = np.flatnonzero(scenes.names == len(SHAPES) + label)
        masks[chosen] = _draw_digits(rng, digits[rng.choice(np.flatnonzero(labels == label), len(chosen))])
    palette = np.array(list(COLORS.values()))
    colors = (palette[scenes.colors] + rng.integers(-20, 21, (len(masks), 3))).clip(0, 255)
    images = np.empty((len(scenes.counts), 3, SIZE, SIZE), dtype=np.uint8)
    ends = np.concatenate([[0], scenes.counts.cumsum()])
    for first in range(0, len(images), CHUNK_SIZE):
        last = min(first + CHUNK_SIZE, len(images))
        part = slice(ends[first], ends[last])
        owners = np.repeat(np.arange(last - first), scenes.counts[first:last])
        canvas = _draw_ground(rng, last - first)
        cells = canvas.reshape(-1, GRID, CELL, GRID, CELL, 3)
        at = owners, scenes.cells[part, 0], slice(None), scenes.cells[part, 1]
        ground, mask = cells[at], masks[part, :, :, None]
        noise = rng.integers(-8, 9, mask.shape)
        cells[at] = np.where(mask > 0, ground * (1 - mask) + (colors[part, None, None] + noise) * mask, ground)
        images[first:last] = canvas.clip(0, 255).transpose(0, 3, 1, 2)
    return images, _boxes(masks > 0.5, scenes.cells)


def _draw_shapes(rng: np.random.Generator, names: Int[np.ndarray, " objects"]) -> Float[np.ndarray, "objects 12 12"]:
    """Return how much of each pixel of a cell is covered by a shape of random size and place."""
    radius = rng.uniform(4.2, 5.4, (len(names), 1, 1)).astype(np.float32)
    shift = rng.uniform(-0.5, 0.5, (2, len(names), 1, 1)).astype(np.float32)
    grid = np.arange(CELL, dtype=np.float32) - (CELL - 1) / 2
    y, x = grid[:, None] - shift[0], np.abs(grid[None, :] - shift[1])
    x, y = np.broadcast_arrays(x, y)
    height = np.abs(y)
    distances = (  # to the outline, negative within
        np.maximum(x, height) - 0.85 * radius,
        np.hypot(x, height) - radius,
        np.maximum(y - 0.75 * radius, (x - 0.6 * (y + radius)) / np.hypot(1, 0.6)),
        (x + height - radius) / np.sqrt(2),
        np.minimum(np.maximum(x - radius, height - 0.3 * radius), np.maximum(height - radius, x - 0.3 * radius)),
    )
    distance = np.select([names[:, None, None] == index for index in range(len(SHAPES))], distances, 1)
    return (0.5 - distance).clip(0, 1)


def _draw_digits(rng: np.random.Generator, digits: UInt8[np.ndarray, "n 28 28"]) -> Float[np.ndarray, "n 12 12"]:
    """Return digits at half their size, without their margin, which is cut at a random place."""
    top, left = rng.integers(0, 5, (2, len(digits)))
    rows, columns = (start[:, None] + np.arange(2 * CELL) for start in (top, left))
    cut = digits[np.arange(len(digits))[:, None, None], rows[:, :, None], columns[:, None, :]]
    halved = cut.reshape(-1, CELL, 2, CELL, 2).mean(axis=(2, 4), dtype=np.float32)
    brightest = halved.max(axis=(1, 2), keepdims=True)  # averaging makes thin strokes faint
    return (1.25 * halved / brightest.clip(1)).clip(0, 1)


def _draw_ground(rng: np.random.Generator, count: int) -> Int[np.ndarray, "count size size 3"]:
    """Return backgrounds that get lighter to the right and to the bottom, with noise and gray dots."""
    ramp = np.linspace(0, 60, SIZE).astype(np.int16)
    across, down = np.broadcast_arrays(ramp[None, :], ramp[:, None])
    ground = 15 + np.stack([across, (across + down) // 4, down], axis=-1)
    canvas = ground + rng.integers(-8, 9, (count, SIZE, SIZE, 1), dtype=np.int16)
    places = rng.integers(0, SIZE - 2, (2, count, MAX_DOTS))
    is_drawn = np.arange(MAX_DOTS) < rng.integers(0, MAX_DOTS + 1, (count, 1))
    owners = np.nonzero(is_drawn)[0]
    levels = rng.integers(90, 160, (len(owners), 1), dtype=np.int16)
    for down_by, across_by in product(range(2), repeat=2):
        canvas[owners, places[0][is_drawn] + down_by, places[1][is_drawn] + across_by] = levels
    return canvas


def _boxes(masks: np.ndarray, cells: Int[np.ndarray, "objects 2"]) -> Int[np.ndarray, "objects 4"]:
    """Return the smallest box around each mask, in pixels of the image."""
    rows, columns = np.any(masks, axis=2), np.any(masks, axis=1)
    starts = np.stack([rows.argmax(1), columns.argmax(1)], axis=1)
    ends = CELL - np.stack([rows[:, ::-1].argmax(1), columns[:, ::-1].argmax(1)], axis=1)
    return np.concatenate([CELL * cells + starts, CELL * cells + ends], axis=1)
