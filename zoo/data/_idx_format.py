import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, Integer, UInt8
from torch import Tensor

from zoo.data.images import ImageSet

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4"}  # NumPy dtype of each type code
NUM_QMNIST_COLUMNS = 8  # of its labels: the class, then the writer and the source
GZIP_MAGIC = b"\x1f\x8b"


def read_labeled_images(images: Path, labels: Path) -> ImageSet:
    """Read gray images and their labels from a pair of IDX files."""
    check_pair(images, labels)
    return ImageSet(_read_pixels(images).unsqueeze(1), _read_labels(labels))


def read_idx(path: Path) -> Integer[Tensor, "..."]:
    """Return the integers in an IDX file, the format of MNIST, plain or compressed with gzip.

    Raises:
        ValueError: the file is damaged, empty or does not contain integers.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "labels-idx1-ubyte")
        ...     _ = path.write_bytes(bytes([0, 0, 8, 1]) + bytes([0, 0, 0, 3]) + bytes([7, 2, 1]))
        ...     read_idx(path)
        tensor([7, 2, 1], dtype=torch.uint8)
    """
    with _open(path) as file:
        dtype, shape = _read_header(file, path)
        content = file.read()
    count, size = math.prod(shape), dtype.itemsize
    if len(content) != count * size:
        of_size, unit = ("", "") if size == 1 else (f" of {size} bytes", " bytes")
        raise _damaged(path, f"its header specifies {count} values{of_size}, but {len(content)}{unit} follow")
    values = np.frombuffer(content, dtype).astype(dtype.newbyteorder("="))
    return torch.from_numpy(values).reshape(shape)


def _read_pixels(path: Path) -> UInt8[Tensor, "n height width"]:
    """Read gray levels from 0 to 255, of any integer type."""
    pixels = read_idx(path)
    if pixels.dtype != torch.uint8 and not ((pixels >= 0) & (pixels <= 255)).all():
        raise _damaged(path, f"gray levels must lie between 0 and 255, but range from {pixels.min()} to {pixels.max()}")
    return pixels.to(torch.uint8)


def _read_labels(path: Path) -> Int64[Tensor, " n"]:
    """Read labels: one per image, or the first of QMNIST's columns."""
    labels = read_idx(path).long()
    labels = labels[:, 0].contiguous() if labels.ndim == 2 else labels
    if (labels < 0).any():
        raise _damaged(path, f"labels must be 0 or more, but one is {labels.min()}")
    return labels


def check_pair(images: Path, labels: Path) -> tuple[int, int]:
    """Return height and width of the images, after a check of the headers of both files."""
    shapes = []
    for path, dimensions in ((images, 3), (labels, 1)):
        with _open(path) as file:
            _, shape = _read_header(file, path)
        if len(shape) == 2 and shape[1] == NUM_QMNIST_COLUMNS and dimensions == 1:
            shape = shape[:1]
        if len(shape) != dimensions:
            raise _damaged(path, f"it has {len(shape)} dimensions where {dimensions} are expected")
        shapes.append(shape)
    (num_images, height, width), (num_labels,) = shapes
    if num_images != num_labels:
        raise ValueError(
            f"{images} contains {num_images} images, but {labels} {num_labels} labels; use both files from one source"
        )
    return height, width


@contextmanager
def _open(path: Path) -> Iterator[BufferedIOBase]:
    """Open an IDX file, and decompress it if its name ends in ``.gz`` or its content starts like gzip's."""
    with path.open("rb") as start:
        compressed = path.suffix == ".gz" or start.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    with gzip.open(path) if compressed else path.open("rb") as file:
        try:
            yield file
        except (OSError, EOFError, zlib.error) as error:
            raise _damaged(path, f"it cannot be decompressed ({error})") from error


def _read_header(file: BufferedIOBase, path: Path) -> tuple[np.dtype, tuple[int, ...]]:
    """Read the header of an IDX file: two zeros, type code, number of dimensions, then each dimension."""
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise _damaged(path, "it does not start like an IDX file")
    code, dimensions = magic[2:]
    if code not in DTYPES:
        codes = ", ".join(f"{known:#04x}" for known in DTYPES if known != 0x08)
        raise _damaged(path, f"its values have type {code:#04x}, not unsigned bytes (0x08) or other integers ({codes})")
    sizes = file.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise _damaged(path, "it ends within its header")
    shape = tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, len(sizes), 4))
    if not shape or 0 in shape:
        raise _damaged(path, "it has no values")
    return np.dtype(DTYPES[code]), shape


def _damaged(path: Path, reason: str) -> ValueError:
    return ValueError(f"{path} is invalid: {reason}; replace it with an intact copy")
