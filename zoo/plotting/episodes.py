from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from zoo.plotting.checks import Array, Shapes


@dataclass(frozen=True)
class Episodes:
    """What a hard-attention model did with N pictures, checked and ready to draw."""

    images: Float[np.ndarray, "n height width 3"]
    centres: Float[np.ndarray, "n time 2"]
    sides: tuple[float, ...]
    probabilities: Float[np.ndarray, "n time classes"]
    labels: Int[np.ndarray, " n"]
    classes: tuple[str, ...]
    tiles: Float[np.ndarray, "n time scales glimpse glimpse 3"] | None

    @property
    def steps(self) -> int:
        """T, the number of glimpses."""
        return self.centres.shape[1]

    @property
    def finest(self) -> float:
        """Side of the smallest square of a glimpse, in pixels."""
        return min(self.sides)


def checked_episodes(
    images: Array,
    centres: Array,
    sides: Sequence[int | float],
    probabilities: Array,
    labels: Array,
    classes: Sequence[str],
    seen: Array | None = None,
) -> Episodes:
    """Return the arguments of ``glimpse_paths`` as ``Episodes``.

    Raises:
        ValueError: an argument has the wrong shape or values outside its range; the sentence names it.
    """
    if not sides or not all(0 < side < np.inf for side in sides):
        raise ValueError(f"sides must be one or more positive numbers of pixels, got {tuple(sides)}")
    shapes = Shapes(S=len(sides))
    return Episodes(
        images=shapes.pictures("images", images, "N C H W"),
        centres=shapes.real("centres", centres, "N T 2"),
        sides=tuple(float(side) for side in sides),
        probabilities=shapes.unit("probabilities", probabilities, "N T K"),
        labels=shapes.class_indices("labels", labels, "N"),
        classes=shapes.class_names("classes", classes),
        tiles=None if seen is None else shapes.pictures("seen", seen, "N T S C g g"),
    )


def covered_pixels(
    size: tuple[int, int], centres: Float[np.ndarray, "time 2"], side: int | float
) -> Bool[np.ndarray, "height width"]:
    """Mark the pixels that have their centre in at least one of the squares.

    Args:
        size: height and width of the picture.
        centres: row and column of each square's centre; pixel centres are whole numbers.
        side: of every square, in pixels. Of two opposite edges the upper or left one counts as inside, so
            that a side of g pixels covers g rows and g columns wherever it lies.

    Example:
        >>> covered_pixels((3, 4), np.array([[0.5, 2.5]]), side=2).astype(int)
        array([[0, 0, 1, 1],
               [0, 0, 1, 1],
               [0, 0, 0, 0]])
    """
    rows, columns = (
        (centre[:, None] - side / 2 <= np.arange(length)) & (np.arange(length) < centre[:, None] + side / 2)
        for centre, length in zip(centres.T, size, strict=True)
    )
    return (rows[:, :, None] & columns[:, None, :]).any(axis=0)
