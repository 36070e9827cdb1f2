import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from zoo.inference.diagnostics.psis import GOOD_K, USABLE_K, ParetoK
from zoo.plotting._bands import GAP, Band, Label, draw_bands, draw_labels, label_width
from zoo.plotting._style import (
    CHAR_WIDTH,
    COLORS,
    CORRECT_COLOR,
    ERROR_COLOR,
    LINE_COLOR,
    MAX_LABEL_LENGTH,
    MUTED_COLOR,
    PAGE_WIDTH,
    TEXT_COLOR,
    TEXT_SIZE,
    TITLE_HEIGHT,
    Page,
    figure_style,
    shorten,
)
from zoo.plotting._validation import Array, ArrayValidator

HEIGHT, LEFT, TOP, BOTTOM, EDGE = 3.3, 0.75, TITLE_HEIGHT, 0.5, 0.15  # inches: height of a figure, and margins
COLUMNS = 4  # panels per row
PANEL, HEADING, GUTTER = 1.1, 0.3, 0.25  # inches: height of a panel, height of its heading, and gap between panels
ROW = 0.26  # inches: height of the row of one k-hat
BINS = 40
GUIDE_LEGEND = "filled: guide"
REFERENCE_LEGEND = "line: reference, as samples, or as mean ± standard deviation above that of the guide"
INTERVAL = 1.96  # standard errors or deviations in half a 95 % interval

Reference = Array | tuple[float, float]
"""Samples, or mean and standard deviation."""


def elbo_figure(curves: Mapping[str, tuple[Array, Array, Array]], evidence: float | None = None) -> Figure:
    """Draw the ELBO during training, with its 95 % interval as a band.

    Args:
        curves: increasing optimization steps, ELBO and its standard error, each ``(points,)``, by name.
        evidence: log-evidence in nats, drawn as a dashed line; None if unknown.

    Example:
        >>> steps = np.array([0.0, 100.0, 200.0])
        >>> figure = elbo_figure({"leave-one-out": (steps, np.array([-9.0, -5.0, -4.0]), np.full(3, 0.2))}, -3.9)
        >>> figure.axes[0].get_ylabel()
        'ELBO (nats)'
    """
    if not curves:
        raise ValueError("curves is empty: there is no ELBO to draw")
    bands = {name: _make_band(name, *parts) for name, parts in curves.items()}
    lines = [] if evidence is None else [Label(f"– – log-evidence\n{evidence:.5g}", evidence, MUTED_COLOR)]
    names = [
        *(shorten(name, MAX_LABEL_LENGTH) for name in bands),
        *(line for label in lines for line in label.text.split("\n")),
    ]
    with figure_style():
        page = Page(HEIGHT)
        width = PAGE_WIDTH - LEFT - label_width({}, names)
        axes = page.axes("elbo", left=LEFT, top=TOP, width=width, height=HEIGHT - TOP - BOTTOM)
        axes.set(xlabel="optimization steps", ylabel="ELBO (nats)")
        drawn = draw_bands(axes, bands)
        labels = [label._replace(text=name) for name, label in zip(names, drawn, strict=False)]
        if evidence is not None:
            axes.axhline(evidence, color=MUTED_COLOR, linewidth=0.9, linestyle=(0, (4, 3)))
        draw_labels(axes, [*labels, *lines])
        page.title("ELBO by optimization step", "line: mean over samples of the guide; band: 95 % interval", left=LEFT)
    return page.figure


def _make_band(name: str, steps: Array, elbo: Array, standard_error: Array) -> Band:
    """Return an ELBO curve with its 95 % interval."""
    validator = ArrayValidator()
    x, y, error = (
        validator.real(f"{what} of {name!r}", part, "P")
        for what, part in (("steps", steps), ("ELBO", elbo), ("standard error", standard_error))
    )
    if (np.diff(x) <= 0).any():
        raise ValueError(f"steps of {name!r} must increase")
    return Band(x, y, (y - INTERVAL * error, y + INTERVAL * error), num_runs=1)


def posterior_figure(guide: Mapping[str, Array], reference: Mapping[str, Reference]) -> Figure:
    """Draw the marginal of a guide for each quantity, beside a reference: its samples, or mean and standard deviation.

    Raises:
        ValueError: guide and reference have different quantities, or none.

    Example:
        >>> samples = np.random.default_rng(0).normal(size=500)
        >>> figure = posterior_figure({"mu": samples, "tau": samples}, {"mu": samples + 1, "tau": (0.0, 1.0)})
        >>> [axes.get_label() for axes in figure.axes]
        ['mu', 'tau']
    """
    if not guide or set(guide) != set(reference):
        raise ValueError(
            f"guide and reference must have the same quantities, got {sorted(guide)} and {sorted(reference)}"
        )
    columns = min(COLUMNS, len(guide))
    rows = math.ceil(len(guide) / columns)
    width = (PAGE_WIDTH - 2 * EDGE - (columns - 1) * GUTTER) / columns
    row_height = HEADING + PANEL + GUTTER
    with figure_style():
        page = Page(TOP + rows * row_height)
        page.title("Marginals of the guide beside a reference", left=EDGE)
        page.text(GUIDE_LEGEND, left=EDGE, top=0.34, fontsize=TEXT_SIZE, color=CORRECT_COLOR)
        left = EDGE + CHAR_WIDTH * (len(GUIDE_LEGEND) + 3)
        page.text(REFERENCE_LEGEND, left=left, top=0.34, fontsize=TEXT_SIZE, color=ERROR_COLOR)
        for i, (name, samples) in enumerate(guide.items()):
            left, top = EDGE + (i % columns) * (width + GUTTER), TOP + (i // columns) * row_height
            axes = page.axes(name, left=left, top=top + HEADING, width=width, height=PANEL)
            page.text(shorten(name, int(width / CHAR_WIDTH)), left=left, top=top + HEADING - 0.08)
            _draw_panel(axes, ArrayValidator().real(f"guide's {name!r}", samples, "N"), name, reference[name])
    return page.figure


def _draw_panel(axes: Axes, samples: Float[np.ndarray, " samples"], name: str, reference: Reference) -> None:
    """Draw the histogram of one quantity, and its reference."""
    if isinstance(reference, tuple):
        mean, sd = reference
        if not (math.isfinite(mean) and 0 < sd < math.inf):
            raise ValueError(f"the reference of {name!r} must be a mean and a positive standard deviation")
        references = np.array([mean - 2 * sd, mean + 2 * sd])
    else:
        references = ArrayValidator().real(f"reference's {name!r}", reference, "R")
    ends = np.quantile(samples, [0.001, 0.999]).tolist() + np.quantile(references, [0.001, 0.999]).tolist()
    bins = np.linspace(min(ends), max(ends) + 1e-9 * max(1, abs(max(ends))), BINS + 1).tolist()
    heights, _, _ = axes.hist(samples, bins=bins, density=True, color=CORRECT_COLOR, alpha=0.35, linewidth=0)
    if isinstance(reference, tuple):
        bars = ((1.1, samples.mean(), samples.std(), CORRECT_COLOR), (1.22, mean, sd, ERROR_COLOR))
        for height, center, half_width, color in bars:
            level = height * np.max(heights)
            axes.plot([center - half_width, center + half_width], [level, level], color=color, linewidth=1.4)
            axes.plot([center], [level], "o", color=color, markersize=3.5)
    else:
        axes.hist(references, bins=bins, density=True, histtype="step", color=ERROR_COLOR, linewidth=1.2)
    axes.set(yticks=[])
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(4))


def pareto_k_figure(found: Mapping[str, ParetoK]) -> Figure:
    """Draw the Pareto k-hat of several guides with 95 % intervals, and the ranges of the verdicts as colored areas.

    Infinite values are drawn at the right edge; NaN raises ``ValueError``.

    Example:
        >>> figure = pareto_k_figure({"eight schools": ParetoK(0.64, 0.1, 4000)})
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['eight schools']
    """
    if not found or any(math.isnan(k.value) for k in found.values()):
        raise ValueError(f"there must be k-hats to draw, none of them NaN, got {dict(found)}")
    names = [shorten(name, MAX_LABEL_LENGTH) for name in found]
    left = EDGE + CHAR_WIDTH * max(map(len, names)) + GAP
    height = TOP + ROW * len(found) + BOTTOM
    finite = [(k.value, INTERVAL * k.standard_error) for k in found.values() if math.isfinite(k.value)]
    high = max([1.2, *(value + half for value, half in finite)]) + 0.1
    low = min([0.0, *(value - half for value, half in finite)]) - 0.1
    with figure_style():
        page = Page(height)
        page.title("Pareto k-hat: reliability of the guide", left=EDGE)
        axes = page.axes("k-hat", left=left, top=TOP, width=PAGE_WIDTH - left - EDGE, height=ROW * len(found))
        for start, end, color, verdict in (
            (low, GOOD_K, COLORS[2], "good"),
            (GOOD_K, USABLE_K, "#e69f00", "usable"),
            (USABLE_K, high, ERROR_COLOR, "unreliable"),
        ):
            axes.axvspan(start, end, color=color, alpha=0.12, linewidth=0)
            axes.annotate(
                verdict, ((start + end) / 2, 1), (0, 4), ("data", "axes fraction"), "offset points", ha="center"
            )
        for i, k in enumerate(found.values()):
            if math.isinf(k.value):
                axes.plot([high - 0.03], [i], ">", color=TEXT_COLOR, markersize=5)
            else:
                axes.errorbar([k.value], [i], xerr=INTERVAL * k.standard_error, fmt="o", color=TEXT_COLOR, markersize=4)
        axes.set(xlabel="k-hat, with its 95 % interval", xlim=(low, high), ylim=(len(found) - 0.5, -0.5))
        axes.set_yticks(range(len(found)), names)
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.1f}"))
        axes.grid(axis="x", color=LINE_COLOR)
    return page.figure
