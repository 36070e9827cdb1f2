from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from PIL import Image

from zoo.plotting.animation import gif
from zoo.plotting.saving import checked_path, write_atomically

FASTEST = 30  # frames a second: more makes the file larger, not the movement clearer
LONGEST = 400  # frames; what takes longer is shown in quick motion
LARGEST = 3_000_000  # bytes
NARROW, WIDE = 200, 400  # pixels, of the longer side: smaller pictures are enlarged, larger ones reduced
HOLD = 1000  # milliseconds, of the last frame


class Film:
    """Pictures of something that goes on, for an endless GIF that stays small however long it lasts.

    Frames are left out as evenly as can be: beyond ``FASTEST`` a second at once, and so that it keeps its speed; later,
    when they become too many, every other one, and it is shown in quick motion. The last picture always stays.

    Args:
        fps: pictures a second, at the natural speed.

    Raises:
        ValueError: ``fps`` is not positive.

    Example:
        >>> film = Film(fps=4)
        >>> for brightness in (0, 128, 255):
        ...     film.add(np.full((8, 8, 3), brightness, dtype=np.uint8))
        >>> len(film.frames)
        3
    """

    def __init__(self, fps: int | float):
        if not fps > 0:
            raise ValueError(f"fps must be positive, got {fps}")
        self.every = max(1, round(fps / FASTEST + 0.499))
        self.frame_ms = round(1000 * self.every / fps)
        self.shot = 0
        self.frames: list[Image.Image] = []
        self.last: Image.Image | None = None

    def add(self, picture: Shaped[np.ndarray, "height width 3"]) -> None:
        """Go on: RGB as bytes, or as numbers between 0 and 1."""
        self.last = fitted(picture)
        if self.shot % self.every == 0:
            self.frames.append(self.last)
        self.shot += 1
        if len(self.frames) > LONGEST:
            self.frames, self.every = self.frames[::2], 2 * self.every

    def save(self, path: str | Path) -> None:
        """Write the GIF; a file already there is replaced once the new one is whole.

        Raises:
            ValueError: the path does not end in ``.gif``, or no picture was added.
            FileNotFoundError: its folder does not exist.
        """
        target = checked_path(path, ".gif")
        if self.last is None:
            raise ValueError("the film is empty: there is no picture to save")
        body = [frame for frame in self.frames if frame is not self.last]
        while len(content := self.encoded([*body, self.last])) > LARGEST and len(body) > 1:
            body = body[::2]
        write_atomically(target, content)

    def encoded(self, frames: list[Image.Image]) -> bytes:
        """Encode the frames, of which the last stands longer."""
        return gif(frames, [self.frame_ms] * (len(frames) - 1) + [max(HOLD, self.frame_ms)])


def fitted(picture: Shaped[np.ndarray, "height width 3"]) -> Image.Image:
    """Bring a picture to a handy size, by a whole factor, so that it stays sharp.

    Example:
        >>> fitted(np.zeros((400, 600, 3), np.uint8)).size, fitted(np.zeros((10, 10, 3))).size
        ((300, 200), (200, 200))
    """
    if picture.dtype.kind == "f":
        picture = (255 * picture.clip(0, 1)).round()
    image = Image.fromarray(picture.astype(np.uint8))
    longer = max(image.size)
    enlarged = max(1, NARROW // longer)
    image = image.resize((enlarged * image.width, enlarged * image.height), Image.Resampling.NEAREST)
    return image.reduce(-(-longer // WIDE)) if longer > WIDE else image
