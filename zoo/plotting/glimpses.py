from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from zoo.plotting._gif import encode_gif
from zoo.plotting._rasterization import rasterize
from zoo.plotting._saving import check_path, write_atomically
from zoo.plotting._summary_card import GlimpseData, draw_summary_cards
from zoo.plotting._validation import Array

GIF_DPI = 120  # lower than that of a PNG, for a small file
LAST_FRAME_FACTOR = 4  # duration of the last frame, in units of the others'


def glimpse_summary(
    images: Array,
    centers: Array,
    patch_sizes: Sequence[int | float],
    probabilities: Array,
    labels: Array,
    classes: Sequence[str],
) -> Figure:
    """Return a figure of the glimpses of a hard-attention model: fixations, revealed pixels and class probabilities.

    The model is that of Mnih et al., "Recurrent models of visual attention", 2014, whose first location is random. A
    patch of ``g`` pixels centered at row ``r`` is drawn from ``r - g/2`` to ``r + g/2``, and columns likewise. Six to
    ten images with up to ten glimpses and twenty classes remain readable.

    Args:
        images: (N, C, H, W) between 0 and 1; C is 1 (gray) or 3 (RGB).
        centers: (N, T, 2), row and column of each glimpse in pixels; pixel centers are integers.
        patch_sizes: sides of a glimpse's S squares, one per scale, in pixels. The finest is drawn for every glimpse,
            the coarser ones for the last.
        probabilities: (N, T, K), class probabilities after each glimpse.
        labels: (N,), the true classes, from 0 to K - 1.
        classes: names of the K classes.

    Raises:
        ValueError: an argument has the wrong shape or values outside its range; the message names it.

    Example:
        >>> import torch
        >>> images, centers = torch.rand(2, 1, 28, 28), torch.full((2, 3, 2), 13.5)
        >>> probabilities, labels = torch.full((2, 3, 10), 0.1), torch.tensor([4, 9])
        >>> figure = glimpse_summary(images, centers, (8,), probabilities, labels, "0123456789")
        >>> [axes.get_label() for axes in figure.axes][:3]
        ['fixations', 'revealed', 'class_probabilities']
    """
    data = GlimpseData(images, centers, patch_sizes, probabilities, labels, classes)
    return draw_summary_cards(data, data.num_glimpses)


def save_glimpse_gif(path: str | Path, frame_ms: int = 700, **arguments: Any) -> None:
    """Write the figure of ``glimpse_summary`` as an endlessly looping GIF with one more glimpse in each frame.

    Args:
        path: path that ends in ``.gif``; an existing file is replaced atomically.
        frame_ms: duration of a frame in milliseconds; the last one is shown four times as long.
        arguments: arguments of ``glimpse_summary``, by name.

    Raises:
        ValueError: as for ``glimpse_summary``; or the path does not end in ``.gif``, or ``frame_ms`` is below 20.
        FileNotFoundError: the folder of ``path`` does not exist.

    Example:
        >>> import tempfile, torch
        >>> glimpses = {"images": torch.rand(1, 1, 28, 28), "centers": torch.tensor([[[13.5, 9.0], [6.0, 20.0]]])}
        >>> classified = {"probabilities": torch.full((1, 2, 10), 0.1), "labels": torch.tensor([4])}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_glimpse_gif(f"{folder}/a.gif", **glimpses, patch_sizes=(8,), **classified, classes="0123456789")
    """
    target = check_path(path, ".gif")
    if frame_ms < 20:
        raise ValueError(f"frame_ms must be at least 20, the shortest duration that viewers support, got {frame_ms}")
    data = GlimpseData(**arguments)
    frames = [rasterize(draw_summary_cards(data, shown), GIF_DPI) for shown in range(1, data.num_glimpses + 1)]
    write_atomically(target, encode_gif(frames, frame_ms, LAST_FRAME_FACTOR * frame_ms))
