from dataclasses import dataclass

import numpy as np

from zoo.plotting.episodes import Episodes
from zoo.plotting.style import LETTER, WIDTH

# Everything here is in inches, unless it says otherwise.
EDGE, GUTTER, GAP = 0.08, 0.3, 0.14  # beside the cards, between two cards, between two panels
VERDICT, NUMBERS, SPACE = 0.22, 0.2, 0.08  # above the panels of a card, below them, and below that
NARROWEST, TALLEST = 0.85, 1.4  # of a picture
STEP, BELIEFS, CLASS = 0.145, 0.9, 0.1  # narrowest column, usual width and lowest row of the beliefs
POINTER = 0.1  # right of them
NAMES_AT_MOST, BELIEFS_AT_MOST = 2.0, 3.0  # however long or many they are: the pictures need room

Box = tuple[float, float, float, float]
"""Left, top, width and height."""


@dataclass(frozen=True)
class Layout:
    """Where the cards lie on the page, one for each picture, and where the panels lie on a card."""

    columns: int
    card: tuple[float, float]  # width and height
    panels: dict[str, Box]

    def corner(self, i: int) -> tuple[float, float]:
        """Return left and top of the card of picture ``i``, the top counted from the first card's."""
        row, column = divmod(i, self.columns)
        width, height = self.card
        left = (WIDTH - self.columns * width - (self.columns - 1) * GUTTER) / 2
        return left + column * (width + GUTTER), row * height


def layout_for(e: Episodes) -> Layout:
    """Lay two cards side by side where the pictures stay large enough, which they do not beside tiles."""
    halves = layout_in_columns(e, 2)
    large_enough = halves.panels["seen"][2] >= NARROWEST
    return halves if large_enough and len(e.images) > 1 else layout_in_columns(e, 1)


def layout_in_columns(e: Episodes, columns: int) -> Layout:
    """Lay out so many cards side by side, the pictures as large as they fit."""
    _, height, width, _ = e.images.shape
    names = GAP + min(NAMES_AT_MOST, LETTER * max(map(len, e.classes)))
    beliefs = min(BELIEFS_AT_MOST, max(STEP * e.steps, min(BELIEFS, 0.2 * e.steps)))
    page = (WIDTH - 2 * EDGE - (columns - 1) * GUTTER) / columns
    room = page - GAP - names - beliefs - POINTER  # for two pictures and, if there are any, the tiles

    margin = sticking_out(e)
    share = 1.0 if e.tiles is None else 0.5
    pixel = min(share * room / (2 * width + 2 * margin), TALLEST / height)
    w, h, m = pixel * width, pixel * height, pixel * margin

    top = VERDICT + m
    panels = {"path": (m, top, w, h), "seen": (w + 2 * m + GAP, top, w, h)}
    right = 2 * w + 2 * m + GAP
    if e.tiles is not None:
        tile = min((room - 2 * w - 2 * m - GAP) / e.steps, h / len(e.sides))
        panels["tiles"] = (right + GAP, top, tile * e.steps, tile * len(e.sides))
        right += GAP + tile * e.steps
    tall = max(h, CLASS * len(e.classes))
    panels["beliefs"] = (right + names, top, beliefs, tall)
    for name in ("tiles", "beliefs"):
        if name in panels:
            x, y, across, down = panels[name]
            panels[f"{name} numbers"] = (x, y + down, across, NUMBERS)
    bottom = max(top + h + m, top + tall + NUMBERS)
    return Layout(columns, (right + names + beliefs + POINTER, bottom + SPACE), panels)


def sticking_out(e: Episodes) -> float:
    """Measure how far the finest squares reach out of their pictures, in pixels."""
    last = np.array(e.images.shape[1:3]) - 1
    outside = np.maximum(-e.centres, e.centres - last).max()  # of the centre furthest out; inside: negative
    return float(max(0.0, outside + (e.finest - 1) / 2))
