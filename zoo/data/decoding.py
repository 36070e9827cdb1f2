from pathlib import Path
from statistics import median_low

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor


def read_picture(path: Path) -> Image.Image:
    """Decode one picture: grey ("L") or in colour ("RGB"), upright, and on white where it is transparent.

    Raises:
        ValueError: it cannot be read.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     Image.new("RGBA", (8, 6)).save(Path(folder, "nothing.png"))
        ...     picture = read_picture(Path(folder, "nothing.png"))
        >>> picture.mode, picture.size, picture.getpixel((0, 0))
        ('RGB', (8, 6), (255, 255, 255))
    """
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
        if picture.mode[0] not in "IF":
            return _on_white(picture).convert("L" if picture.mode in ("1", "L", "LA") else "RGB")
    except Exception as error:  # on a damaged file the decoders raise whatever they stumble over
        raise ValueError(
            f"{path} cannot be read as a picture ({error}); move it elsewhere or replace it with an intact copy"
        ) from error
    raise ValueError(f"{path} has more than 256 levels of grey; save it with 8 bits for each channel")


def _on_white(picture: Image.Image) -> Image.Image:
    """Put a picture on white, if any of it is transparent."""
    if not picture.has_transparency_data:
        return picture
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))


def median_size(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """Take the median height and the median width.

    Example:
        >>> median_size([(6, 8), (2, 9), (7, 100)])
        (6, 9)
    """
    return median_low(height for height, _ in sizes), median_low(width for _, width in sizes)


def read_stack(paths: list[Path], mode: str, size: tuple[int, int]) -> UInt8[Tensor, "n channels height width"]:
    """Decode pictures, one at a time, to one mode ("L" or "RGB") and one height and width, as one tensor.

    Raises:
        ValueError: a picture cannot be read.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     paths = [Path(folder, "grey.png"), Path(folder, "colour.png")]
        ...     for path, mode, side in zip(paths, ("L", "RGB"), (8, 3)):
        ...         Image.new(mode, (side, side)).save(path)
        ...     read_stack(paths, "RGB", size=(5, 4)).shape
        torch.Size([2, 3, 5, 4])
    """
    height, width = size
    images = torch.empty(len(paths), len(mode), height, width, dtype=torch.uint8)
    for image, path in zip(images, paths, strict=True):
        picture = read_picture(path).convert(mode).resize((width, height), Image.Resampling.BILINEAR)
        image.copy_(torch.from_numpy(np.array(picture)).reshape(height, width, -1).permute(2, 0, 1))
    return images
