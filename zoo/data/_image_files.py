from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

COPY_FOLDERS = frozenset({"__MACOSX", "@eaDir"})  # in which macOS and file servers keep copies of images
UNSUPPORTED = frozenset({"BUFR", "GRIB", "HDF5", "MPEG", "WMF"})  # formats that Pillow recognizes but cannot decode


def is_hidden(path: Path) -> bool:
    """Return whether a name starts with a dot, or is that of a folder of copies."""
    return path.name.startswith(".") or path.name in COPY_FOLDERS


def has_image_suffix(path: Path) -> bool:
    """Return whether a file has the suffix of an image format that Pillow can decode."""
    image_format = Image.registered_extensions().get(path.suffix.lower())
    return image_format in Image.OPEN and image_format not in UNSUPPORTED


def find_images(folder: Path, root: Path, skipped: Counter[str]) -> Iterator[Path]:
    """Yield the paths of all images in a folder and its subfolders, in order, and count other files in ``skipped``.

    A link to a folder above it, up to ``root``, is not followed.
    """
    if any(parent.is_relative_to(root) and parent.samefile(folder) for parent in folder.parents):
        skipped["link to a folder above"] += 1
        return
    for path in sorted(folder.iterdir()):
        if is_hidden(path):
            skipped["hidden"] += 1
        elif path.is_dir():
            yield from find_images(path, root, skipped)
        elif path.is_symlink() and not path.exists():
            raise FileNotFoundError(f"{path} is a broken link; restore the file or correct the link")
        elif not path.is_file():
            skipped["pipe, socket or device"] += 1  # opening one can block
        elif _is_image(path):
            yield path
        else:
            skipped[path.suffix.lower() or "without suffix"] += 1


def _is_image(path: Path) -> bool:
    if has_image_suffix(path):
        return True
    try:
        with Image.open(path) as file:
            return file.format not in UNSUPPORTED
    except UnidentifiedImageError:
        return False
    except Exception:  # a damaged image of a known format; decoding it reports the reason
        return True


def read_image(path: Path) -> Image.Image:
    """Decode one image: gray ("L") or color ("RGB"), upright, and on white if it is transparent."""
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
        if image.mode[0] not in "IF":
            mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
            if image.has_transparency_data:
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
            return image.convert(mode)
    except Exception as error:  # the decoders raise all kinds of errors on a damaged file
        raise ValueError(
            f"{path} cannot be read as an image ({error}); move it elsewhere or replace it with an intact copy"
        ) from error
    raise ValueError(f"{path} has more than 256 gray levels; save it with 8 bits per channel")


def read_images(paths: list[Path], mode: str, size: tuple[int, int]) -> UInt8[Tensor, "n channels height width"]:
    """Decode images, one at a time, to one mode ("L" or "RGB") and one height and width."""
    height, width = size
    images = torch.empty(len(paths), len(mode), height, width, dtype=torch.uint8)
    for image, path in zip(images, paths, strict=True):
        decoded = read_image(path).convert(mode).resize((width, height), Image.Resampling.BILINEAR)
        image.copy_(torch.from_numpy(np.array(decoded)).reshape(height, width, -1).permute(2, 0, 1))
    return images
