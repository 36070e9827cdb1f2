from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from zoo.plotting._style import CHAR_WIDTH, PAGE_WIDTH
from zoo.plotting._validation import Array, ArrayValidator

# All lengths are in inches, unless noted otherwise.
EDGE, CARD_GAP, GAP = 0.08, 0.3, 0.14  # beside the cards, between two cards, between two panels
HEADING, NUMBERS, SPACE = 0.22, 0.2, 0.08  # above the panels of a card, below them, and below that
MIN_IMAGE_WIDTH, MAX_IMAGE_HEIGHT = 0.85, 1.4
MIN_STEP, USUAL_WIDTH, CLASS_HEIGHT = 0.145, 0.9, 0.1  # of the class probabilities: columns, panel, rows
POINTER = 0.1  # right of them
MAX_NAMES_WIDTH, MAX_PROBABILITIES_WIDTH = 2.0, 3.0  # the rest is for the images

Box = tuple[float, float, float, float]
"""Left, top, width and height."""


@dataclass(frozen=True)
class GlimpseData:
    """Validated arguments of ``glimpse_summary``."""

    images: Float[np.ndarray, "n height width 3"]
    centers: Float[np.ndarray, "n time 2"]
    patch_sizes: tuple[float, ...]
    probabilities: Float[np.ndarray, "n time classes"]
    labels: Int[np.ndarray, " n"]
    classes: tuple[str, ...]
    patches: Float[np.ndarray, "n time scales size size 3"] | None

    @property
    def num_glimpses(self) -> int:
        """Number of glimpses, ``T``."""
        return self.centers.shape[1]

    @property
    def margin(self) -> float:
        """Distance in pixels by which the finest squares extend beyond their images."""
        last = np.array(self.images.shape[1:3]) - 1
        outside = np.maximum(-self.centers, self.centers - last).max()  # of the outermost center; negative if inside
        return float(max(0.0, outside + (min(self.patch_sizes) - 1) / 2))


def check_glimpse_data(
    images: Array,
    centers: Array,
    patch_sizes: Sequence[int | float],
    probabilities: Array,
    labels: Array,
    classes: Sequence[str],
    patches: Array | None = None,
) -> GlimpseData:
    """Return the arguments of ``glimpse_summary`` as ``GlimpseData``."""
    if not patch_sizes or not all(0 < size < np.inf for size in patch_sizes):
        raise ValueError(f"patch_sizes must be one or more positive numbers of pixels, got {tuple(patch_sizes)}")
    validator = ArrayValidator(S=len(patch_sizes))
    return GlimpseData(
        images=validator.images("images", images, "N C H W"),
        centers=validator.real("centers", centers, "N T 2"),
        patch_sizes=tuple(float(size) for size in patch_sizes),
        probabilities=validator.unit("probabilities", probabilities, "N T K"),
        labels=validator.class_indices("labels", labels, "N"),
        classes=validator.class_names("classes", classes),
        patches=None if patches is None else validator.images("patches", patches, "N T S C g g"),
    )


@dataclass(frozen=True)
class Layout:
    """Positions of the cards on the page, one per image, and of the panels on a card."""

    columns: int
    card: tuple[float, float]  # width and height
    panels: dict[str, Box]

    def corner(self, i: int) -> tuple[float, float]:
        """Return left and top of card ``i``, the top relative to the first card's."""
        row, column = divmod(i, self.columns)
        width, height = self.card
        left = (PAGE_WIDTH - self.columns * width - (self.columns - 1) * CARD_GAP) / 2
        return left + column * (width + CARD_GAP), row * height


def make_layout(data: GlimpseData) -> Layout:
    """Return a layout with two columns of cards if the images stay large enough, else with one."""
    two = _layout_with_columns(data, 2)
    large_enough = two.panels["revealed"][2] >= MIN_IMAGE_WIDTH
    return two if large_enough and len(data.images) > 1 else _layout_with_columns(data, 1)


def _layout_with_columns(data: GlimpseData, columns: int) -> Layout:
    """Return the layout whose images are as large as fits."""
    _, height, width, _ = data.images.shape
    steps = data.num_glimpses
    names = GAP + min(MAX_NAMES_WIDTH, CHAR_WIDTH * max(map(len, data.classes)))
    probabilities = min(MAX_PROBABILITIES_WIDTH, max(MIN_STEP * steps, min(USUAL_WIDTH, 0.2 * steps)))
    card = (PAGE_WIDTH - 2 * EDGE - (columns - 1) * CARD_GAP) / columns
    available = card - GAP - names - probabilities - POINTER  # for two images and, if any, the patches

    share = 1.0 if data.patches is None else 0.5
    pixel = min(share * available / (2 * width + 2 * data.margin), MAX_IMAGE_HEIGHT / height)
    w, h, m = pixel * width, pixel * height, pixel * data.margin

    top, right = HEADING + m, 2 * w + 2 * m + GAP
    panels = {"fixations": (m, top, w, h), "revealed": (w + 2 * m + GAP, top, w, h)}
    if data.patches is not None:
        side = min((available - 2 * w - 2 * m - GAP) / steps, h / len(data.patch_sizes))
        panels["patches"] = (right + GAP, top, side * steps, side * len(data.patch_sizes))
        right += GAP + side * steps
    tall = max(h, CLASS_HEIGHT * len(data.classes))
    panels["class_probabilities"] = (right + names, top, probabilities, tall)
    for name, (x, y, across, down) in list(panels.items())[2:]:
        panels[f"{name} numbers"] = (x, y + down, across, NUMBERS)
    bottom = max(top + h + m, top + tall + NUMBERS)
    return Layout(columns, (right + names + probabilities + POINTER, bottom + SPACE), panels)
