from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from scipy.spatial import KDTree

from zoo.plotting.cards import draw_episodes
from zoo.plotting.checks import Array
from zoo.plotting.episodes import checked_episodes
from zoo.plotting.saving import checked_path, write_atomically
from zoo.plotting.style import house_style

DPI = 120  # coarser than a PNG's: the file stays small
COLOURS = 254  # half the most frequent ones, kept exactly: areas; half blends: edges and photographs
HOLD = 4  # how many times longer the last frame stands


def save_glimpse_gif(
    path: str | Path,
    images: Array,
    centres: Array,
    sides: Sequence[int | float],
    probabilities: Array,
    labels: Array,
    classes: Sequence[str],
    frame_ms: int = 700,
) -> None:
    """Write the picture of ``glimpse_paths`` as an endless GIF: T frames, one glimpse more in each.

    Args:
        path: ends in ``.gif``; a file already there is replaced once the new one is whole.
        images: (N, C, H, W) between 0 and 1; C is 1 (grey) or 3 (RGB).
        centres: (N, T, 2), row and column of each glimpse in pixels; pixel centres are whole numbers.
        sides: of a glimpse's S squares, one per scale, in pixels.
        probabilities: (N, T, K), of each class after each glimpse.
        labels: (N,), the true classes, from 0 to K - 1.
        classes: their K names.
        frame_ms: how long a frame stands, in milliseconds; the last one stands four times as long.

    Raises:
        ValueError: an argument has the wrong shape or values outside its range; the sentence names it.
        FileNotFoundError: the folder of ``path`` does not exist.

    Example:
        >>> import tempfile, torch
        >>> images, centres = torch.rand(1, 1, 28, 28), torch.tensor([[[13.5, 9.0], [6.0, 20.0]]])
        >>> beliefs, labels = torch.full((1, 2, 10), 0.1), torch.tensor([4])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "glimpses.gif"
        ...     save_glimpse_gif(file, images, centres, (8,), beliefs, labels, "0123456789")
        ...     with Image.open(file) as gif:
        ...         gif.n_frames
        2
    """
    target = checked_path(path, ".gif")
    if frame_ms < 20:
        raise ValueError(f"frame_ms must be at least 20, the fastest that viewers show, got {frame_ms}")
    episodes = checked_episodes(images, centres, sides, probabilities, labels, classes)
    frames = [pixels(draw_episodes(episodes, shown)) for shown in range(1, episodes.steps + 1)]
    durations = [frame_ms] * (len(frames) - 1) + [HOLD * frame_ms]
    first, *others = in_one_palette(frames)
    buffer = BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=durations, loop=0)
    write_atomically(target, buffer.getvalue())


def pixels(figure: Figure) -> Image.Image:
    """Draw the figure as RGB pixels."""
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    with house_style():
        canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def in_one_palette(frames: Sequence[Image.Image]) -> list[Image.Image]:
    """Reduce the frames to colours they share, so that what stands still is stored once and stays still."""
    film = np.stack([np.asarray(frame, dtype=np.int32) for frame in frames])
    codes = film[..., 0] << 16 | film[..., 1] << 8 | film[..., 2]
    codes, where, counts = np.unique(codes, return_inverse=True, return_counts=True)
    colours = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1).astype(np.uint8)

    areas = colours[np.argsort(-counts, kind="stable")[: COLOURS // 2]]
    blends = Image.fromarray(film[-1].astype(np.uint8)).quantize(COLOURS // 2).getpalette() or []
    palette = np.concatenate([areas, np.reshape(blends, (-1, 3)).astype(np.uint8)])
    _, nearest = KDTree(palette).query(colours)
    images = [Image.fromarray(frame) for frame in nearest.astype(np.uint8)[where]]
    for image in images:
        image.putpalette(palette.tobytes())
    return images
