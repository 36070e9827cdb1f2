from contextlib import AbstractContextManager
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

WIDTH = 8.3  # inches: a README's column at 100 pixels an inch
DPI = 200  # twice that, for screens with fine pixels

INK, MUTED, RULE = "#1f2328", "#68707a", "#d5dae0"
RIGHT, WRONG = "#0072b2", "#d55e00"  # blue and vermilion look different to every eye
HEADING, TEXT, SMALL = 9.0, 7.5, 6.5  # points
TITLE = 0.46  # inches: a title and its subtitle
LETTER = 0.062  # inches, about the width of one in a line of text
LABEL = 44  # letters of the longest name that is written beside a figure's axes


def house_style() -> AbstractContextManager[None]:
    """Give every picture the same look, whatever the user's own matplotlib settings are.

    Example:
        >>> with house_style():
        ...     matplotlib.rcParams["font.family"]
        ['DejaVu Sans']
    """
    settings: dict[str, Any] = {
        "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters everywhere
        "font.size": TEXT,
        "text.color": INK,
        "text.parse_math": False,  # a class may be called "$"
        "axes.edgecolor": RULE,
        "axes.labelcolor": INK,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": RULE,
        "grid.linewidth": 0.6,
        "legend.edgecolor": "white",  # without a visible frame, but over the grid
        "legend.framealpha": 1.0,
        "xtick.color": RULE,
        "ytick.color": RULE,
        "xtick.labelcolor": MUTED,
        "ytick.labelcolor": MUTED,
    }
    return matplotlib.style.context(["default", settings])


class Sheet:
    """A white page as wide as a README, on which things are placed in inches from its top left corner.

    It keeps the figure and its height; make it inside ``house_style()``.

    Example:
        >>> axes = Sheet(2.0).axes("panel", left=0.0, top=0.5, width=8.3, height=1.0)
        >>> print(axes.get_position())
        Bbox(x0=0.0, y0=0.25, x1=1.0, y1=0.75)
    """

    def __init__(self, height: float) -> None:
        self.height = height
        self.figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")

    def axes(self, label: str, *, left: float, top: float, width: float, height: float) -> Axes:
        """Add empty axes; the label tells a reader of ``figure.axes`` what they hold."""
        bottom = self.height - top - height
        bounds = (left / WIDTH, bottom / self.height, width / WIDTH, height / self.height)
        return self.figure.add_axes(bounds, label=label)

    def title(self, title: str, subtitle: str = "", *, left: float) -> None:
        """Write a title, and below it what the marks mean; both fit above the first ``TITLE`` inches."""
        self.text(title, left=left, top=0.18, fontsize=HEADING, fontweight="bold")
        self.text(subtitle, left=left, top=0.34, fontsize=TEXT, color=MUTED)

    def text(self, text: str, *, left: float, top: float, **look: Any) -> Text:
        """Write a text whose baseline starts there, unless ``look`` aligns it otherwise."""
        return self.figure.text(left / WIDTH, 1 - top / self.height, text, **look)


def shortened(text: str, letters: int) -> str:
    """Leave out the middle of a text that is too long.

    Example:
        >>> shortened("/home/me/studies/coin.py:model:guide", letters=25)
        '/home/me/stu…:model:guide'
    """
    if len(text) <= letters:
        return text
    start, end = letters // 2, letters - letters // 2 - 1
    return f"{text[:start]}…{text[-end:]}"


def percent(probability: float) -> str:
    """Write a probability as people read it.

    Example:
        >>> percent(0.968)
        '97 %'
    """
    return f"{100 * probability:.0f} %"
