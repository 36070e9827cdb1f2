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
    except Exception as error:  # on a damaged file the decoders raise whatever they stumble over
        raise ValueError(
            f"{path} cannot be read as a picture ({error}); remove it or replace it with an intact copy"
        ) from error
    if picture.mode[0] in "IF":
        raise ValueError(f"{path} has more than 256 levels of grey; save it with 8 bits for each channel")
    mode = "L" if picture.mode in ("1", "L", "LA") else "RGB"
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return picture.convert(mode)


def median_size(pictures: list[Image.Image]) -> tuple[int, int]:
    """Take the median height and the median width.

    Example:
        >>> median_size([Image.new("L", (8, 6)), Image.new("L", (9, 2)), Image.new("L", (100, 7))])
        (6, 9)
    """
    return median_low(picture.height for picture in pictures), median_low(picture.width for picture in pictures)


def stack(pictures: list[Image.Image], mode: str, size: tuple[int, int]) -> UInt8[Tensor, "n channels height width"]:
    """Bring pictures to one mode ("L" or "RGB") and one height and width, as one tensor.

    Example:
        >>> stack([Image.new("L", (8, 6)), Image.new("RGB", (3, 3))], "RGB", size=(5, 4)).shape
        torch.Size([2, 3, 5, 4])
    """
    height, width = size
    images = torch.empty(len(pictures), len(mode), height, width, dtype=torch.uint8)
    for image, picture in zip(images, pictures, strict=True):
        pixels = np.array(picture.convert(mode).resize((width, height), Image.Resampling.BILINEAR))
        image.copy_(torch.from_numpy(pixels).reshape(height, width, -1).permute(2, 0, 1))
    return images
