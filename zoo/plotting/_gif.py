import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped
from PIL import Image
from scipy.spatial import KDTree

from zoo.plotting._saving import check_path, write_atomically

NUM_COLORS = 254  # half for the most frequent colors, kept exactly (areas); half for all others (edges, photographs)
MAX_FPS = 30  # a higher rate makes the file larger, but the motion no smoother
MAX_FRAMES = 400  # longer recordings are played faster
MAX_BYTES = 3_000_000
MIN_SIDE, MAX_SIDE = 200, 400  # pixels of an image's longer side; smaller images are enlarged, larger ones reduced
LAST_FRAME_MS = 1000


class GifWriter:
    """Collects the frames of a recording and writes an endlessly looping GIF whose size is bounded.

    Frames are dropped evenly: above ``MAX_FPS`` immediately, so that the speed stays the same; if there are more than
    ``MAX_FRAMES``, every other one, so that it is played faster. The last frame is always kept.

    Args:
        fps: frames per second of the recording.

    Raises:
        ValueError: ``fps`` is not positive.

    Example:
        >>> writer = GifWriter(fps=4)
        >>> for brightness in (0.0, 0.5, 1.0):
        ...     writer.add(np.full((8, 8, 3), brightness))
        >>> len(writer.frames)
        3
    """

    def __init__(self, fps: int | float):
        if not fps > 0:
            raise ValueError(f"fps must be positive, got {fps}")
        self._keep_every = math.ceil(fps / MAX_FPS)
        self._frame_ms = round(1000 * self._keep_every / fps)
        self._num_added = 0
        self._last: Image.Image | None = None
        self.frames: list[Image.Image] = []

    def add(self, image: Shaped[np.ndarray, "height width 3"]) -> None:
        """Append a frame: RGB as uint8, or as floats between 0 and 1."""
        self._last = resize_frame(image)
        if self._num_added % self._keep_every == 0:
            self.frames.append(self._last)
        self._num_added += 1
        if len(self.frames) > MAX_FRAMES:
            self.frames, self._keep_every = self.frames[::2], 2 * self._keep_every

    def save(self, path: str | Path) -> None:
        """Write the GIF atomically; raise a ``ValueError`` if there are no frames."""
        target = check_path(path, ".gif")
        if self._last is None:
            raise ValueError("there are no frames to save: call add first")
        body = [frame for frame in self.frames if frame is not self._last]
        last_ms = max(LAST_FRAME_MS, self._frame_ms)
        while len(content := encode_gif([*body, self._last], self._frame_ms, last_ms)) > MAX_BYTES and len(body) > 1:
            body = body[::2]
        write_atomically(target, content)


def encode_gif(frames: Sequence[Image.Image], frame_ms: int, last_frame_ms: int) -> bytes:
    """Return RGB frames of one size as an endlessly looping GIF; it stores durations in units of 10 ms."""
    first, *others = share_palette(frames)
    durations = [frame_ms] * len(others) + [last_frame_ms]
    buffer = BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=durations, loop=0)
    return buffer.getvalue()


def resize_frame(image: Shaped[np.ndarray, "height width 3"]) -> Image.Image:
    """Scale an image by an integer factor, so that it stays sharp, to between ``MIN_SIDE`` and ``MAX_SIDE``."""
    if image.dtype.kind == "f":
        image = (255 * image.clip(0, 1)).round()
    frame = Image.fromarray(image.astype(np.uint8))
    longer = max(frame.size)
    factor = max(1, MIN_SIDE // longer)
    frame = frame.resize((factor * frame.width, factor * frame.height), Image.Resampling.NEAREST)
    return frame.reduce(-(-longer // MAX_SIDE)) if longer > MAX_SIDE else frame


def share_palette(frames: Sequence[Image.Image]) -> list[Image.Image]:
    """Reduce the frames to one palette, so that unchanged regions are stored once and do not flicker."""
    packed = [_pack_rgb(frame) for frame in frames]
    # Colors are counted in each frame first, since all pixels together would take much memory.
    by_frame = [np.unique(codes, return_counts=True) for codes in packed]
    codes, where = np.unique(np.concatenate([codes for codes, _ in by_frame]), return_inverse=True)
    counts = np.bincount(where, np.concatenate([counts for _, counts in by_frame]))
    colors = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1).astype(np.uint8)

    frequent = colors[np.argsort(-counts, kind="stable")[: NUM_COLORS // 2]]
    others = frames[-1].quantize(NUM_COLORS // 2).getpalette() or []
    palette = np.concatenate([frequent, np.reshape(others, (-1, 3)).astype(np.uint8)])
    _, nearest = KDTree(palette).query(colors)
    nearest = nearest.astype(np.uint8)
    images = [Image.fromarray(nearest[np.searchsorted(codes, frame)]) for frame in packed]
    for image in images:
        image.putpalette(palette.tobytes())
    return images


def _pack_rgb(frame: Image.Image) -> Int[np.ndarray, "height width"]:
    """Return each color as one number, 0xRRGGBB."""
    red, green, blue = np.moveaxis(np.asarray(frame, dtype=np.int32), -1, 0)
    return red << 16 | green << 8 | blue
