from contextlib import AbstractContextManager
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

PAGE_WIDTH = 8.3  # inches: a README's column at 100 pixels an inch
DPI = 200  # twice that, for screens with fine pixels

TEXT_COLOR, MUTED_COLOR, LINE_COLOR = "#1f2328", "#68707a", "#d5dae0"
CORRECT_COLOR, ERROR_COLOR = "#0072b2", "#d55e00"  # blue and vermilion, distinguishable with any color vision
TITLE_SIZE, TEXT_SIZE, SMALL_SIZE = 9.0, 7.5, 6.5  # points
TITLE_HEIGHT = 0.46  # inches: a title and its subtitle
CHAR_WIDTH = 0.062  # inches, about the width of a character of text
MAX_LABEL_LENGTH = 44  # characters of the longest name beside a figure's axes


def figure_style() -> AbstractContextManager[None]:
    """Return a context with the style of all figures, independent of the user's Matplotlib settings.

    Example:
        >>> with figure_style():
        ...     matplotlib.rcParams["font.family"]
        ['DejaVu Sans']
    """
    settings: dict[str, Any] = {
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
        "legend.edgecolor": "white",  # without a visible frame, but over the grid
        "legend.framealpha": 1.0,
        "xtick.color": LINE_COLOR,
        "ytick.color": LINE_COLOR,
        "xtick.labelcolor": MUTED_COLOR,
        "ytick.labelcolor": MUTED_COLOR,
    }
    return matplotlib.style.context(["default", settings])


class Page:
    """A white figure as wide as a README, on which axes and texts are positioned in inches from the top left corner.

    Create it inside ``figure_style()``.

    Args:
        height: height of the figure in inches.

    Example:
        >>> axes = Page(2.0).axes("panel", left=0.0, top=0.5, width=8.3, height=1.0)
        >>> print(axes.get_position())
        Bbox(x0=0.0, y0=0.25, x1=1.0, y1=0.75)
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


def shorten(text: str, max_length: int) -> str:
    """Return a text with its middle replaced by an ellipsis if it is too long.

    Example:
        >>> shorten("/home/me/studies/coin.py:model:guide", max_length=25)
        '/home/me/stu…:model:guide'
    """
    if len(text) <= max_length:
        return text
    start, end = max_length // 2, max_length - max_length // 2 - 1
    return f"{text[:start]}…{text[-end:]}"


def format_percent(probability: float) -> str:
    """Return a probability as a percentage.

    Example:
        >>> format_percent(0.968)
        '97 %'
    """
    return f"{100 * probability:.0f} %"
