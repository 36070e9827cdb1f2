from contextlib import AbstractContextManager
from typing import Any

import matplotlib.style
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

PAGE_WIDTH = 8.3  # inches: the width of a README at 100 pixels per inch
DPI = 200  # for high-resolution screens

TEXT_COLOR, MUTED_COLOR, LINE_COLOR = "#1f2328", "#68707a", "#d5dae0"
CORRECT_COLOR, ERROR_COLOR = "#0072b2", "#d55e00"  # blue and vermilion, distinguishable with any color vision
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9")  # Okabe and Ito, 2008
LINE_STYLES = ("-", "--", "-.", ":")  # so that lines do not differ by color only
TITLE_SIZE, TEXT_SIZE, SMALL_SIZE = 9.0, 7.5, 6.5  # points
TITLE_HEIGHT = 0.46  # inches: a title and its subtitle
CHAR_WIDTH = 0.062  # inches, about the width of a character of text
MAX_LABEL_LENGTH = 44  # characters of the longest name beside a figure's axes

_SETTINGS: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with Matplotlib
    "font.size": TEXT_SIZE,
    "text.color": TEXT_COLOR,
    "text.parse_math": False,  # a class may be named "$"
    "axes.edgecolor": LINE_COLOR,
    "axes.labelcolor": TEXT_COLOR,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": LINE_COLOR,
    "grid.linewidth": 0.6,
    "legend.edgecolor": "white",  # no visible frame; the white background hides the grid
    "legend.framealpha": 1.0,
    "xtick.color": LINE_COLOR,
    "ytick.color": LINE_COLOR,
    "xtick.labelcolor": MUTED_COLOR,
    "ytick.labelcolor": MUTED_COLOR,
}


def figure_style() -> AbstractContextManager[None]:
    """Return a context with the style of all figures, independent of the user's Matplotlib settings."""
    return matplotlib.style.context(["default", _SETTINGS])


class Page:
    """A white figure of width ``PAGE_WIDTH`` whose parts are positioned in inches from the top left corner.

    Create it inside ``figure_style()``.
    """

    def __init__(self, height: float) -> None:
        self.height = height
        self.figure = Figure(figsize=(PAGE_WIDTH, height), dpi=DPI, facecolor="white")

    def axes(self, label: str, *, left: float, top: float, width: float, height: float) -> Axes:
        """Add and return empty axes; ``label`` identifies them in ``figure.axes``."""
        bottom = self.height - top - height
        bounds = (left / PAGE_WIDTH, bottom / self.height, width / PAGE_WIDTH, height / self.height)
        return self.figure.add_axes(bounds, label=label)

    def title(self, title: str, subtitle: str = "", *, left: float) -> None:
        """Write a title and a subtitle, which take up ``TITLE_HEIGHT`` inches."""
        self.text(title, left=left, top=0.18, fontsize=TITLE_SIZE, fontweight="bold")
        self.text(subtitle, left=left, top=0.34, fontsize=TEXT_SIZE, color=MUTED_COLOR)

    def text(self, text: str, *, left: float, top: float, **style: Any) -> Text:
        """Write a text whose baseline starts at a position, unless ``style`` aligns it otherwise."""
        return self.figure.text(left / PAGE_WIDTH, 1 - top / self.height, text, **style)


def show_image(axes: Axes, image: Float[np.ndarray, "height width 3"]) -> None:
    """Draw an image that fills the axes, with pixel centers at integers."""
    axes.imshow(image, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    axes.autoscale(False)


def shorten(text: str, max_length: int) -> str:
    """Return a text with its middle replaced by an ellipsis if it is too long."""
    if len(text) <= max_length:
        return text
    start, end = max_length // 2, max_length - max_length // 2 - 1
    return f"{text[:start]}…{text[-end:]}"


def format_percent(probability: float) -> str:
    """Return a probability as a percentage, such as 97 %."""
    return f"{100 * probability:.0f} %"
