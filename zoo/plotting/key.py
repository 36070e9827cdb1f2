from typing import Any

from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.typing import ColorType

from zoo.plotting.panels import BELIEF, time_colours
from zoo.plotting.style import INK, TEXT


def draw_key(figure: Figure, sides: tuple[float, ...]) -> None:
    """Say in one line at the foot of the figure what the marks mean."""
    start, chosen, later, *_ = time_colours(4)
    discs = (mark("o", 8, chosen, INK), mark("o", 8, later, INK))
    ramp = tuple(mark("s", 6, BELIEF(probability)) for probability in (0.0, 0.3, 0.6, 1.0))
    pixels = ", ".join(f"{side:g}" for side in sorted(sides))
    entries: dict[str, Any] = {
        "random start": mark("o", 8, "white", start),
        "chosen by the model": discs,
        f"glimpse ({pixels} pixels wide)": mark("s", 8, "none", chosen),
        "probability, 0 to 1": ramp,
        "most probable": (mark("s", 8, BELIEF(0.8)), mark("o", 2.5, "white")),
        "true class": mark("<", 4, INK),
    }
    in_a_row = HandlerTuple(ndivide=None, pad=0)
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="lower center",
        ncols=len(entries),
        fontsize=TEXT,
        handler_map={discs: in_a_row, ramp: in_a_row},
        handlelength=1.9,
        handletextpad=0.5,
        columnspacing=1.2,
        borderaxespad=0.3,
        borderpad=0,
    )


def mark(shape: str, size: int | float, fill: ColorType, edge: ColorType = "none") -> Line2D:
    """Make one mark as the panels show it."""
    return Line2D([], [], ls="", marker=shape, ms=size, mfc=fill, mec=edge, mew=0.7 if edge == INK else 1.2)
