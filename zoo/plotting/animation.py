from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Int
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
    write_atomically(target, gif(frames, durations))


def gif(frames: Sequence[Image.Image], durations: Sequence[int]) -> bytes:
    """Encode frames of one size as an endless GIF.

    Args:
        frames: in RGB.
        durations: how long each stands, in milliseconds; a GIF counts in tens of them.
    """
    first, *others = in_one_palette(frames)
    buffer = BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=list(durations), loop=0)
    return buffer.getvalue()


def pixels(figure: Figure) -> Image.Image:
    """Draw the figure as RGB pixels."""
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    with house_style():
        canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def in_one_palette(frames: Sequence[Image.Image]) -> list[Image.Image]:
    """Reduce the frames to colours they share, so that what stands still is stored once and stays still."""
    films = [colour_codes(frame) for frame in frames]
    found = [np.unique(film, return_counts=True) for film in films]  # frame by frame: a long film is large
    codes, where = np.unique(np.concatenate([codes for codes, _ in found]), return_inverse=True)
    counts = np.bincount(where, np.concatenate([counts for _, counts in found]))
    colours = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1).astype(np.uint8)

    areas = colours[np.argsort(-counts, kind="stable")[: COLOURS // 2]]
    blends = frames[-1].quantize(COLOURS // 2).getpalette() or []
    palette = np.concatenate([areas, np.reshape(blends, (-1, 3)).astype(np.uint8)])
    _, nearest = KDTree(palette).query(colours)
    nearest = nearest.astype(np.uint8)
    images = [Image.fromarray(nearest[np.searchsorted(codes, film)]) for film in films]
    for image in images:
        image.putpalette(palette.tobytes())
    return images


def colour_codes(frame: Image.Image) -> Int[np.ndarray, "height width"]:
    """Write each colour as one number, 0xRRGGBB."""
    red, green, blue = np.moveaxis(np.asarray(frame, dtype=np.int32), -1, 0)
    return red << 16 | green << 8 | blue
