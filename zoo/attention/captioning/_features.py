import hashlib
import json
import logging
import math
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Float16
from torch import Tensor

from zoo.attention.captioning._backbone import EfficientNetLite, feature_shape, load_backbone, normalize, weights_path
from zoo.attention.captioning._onnx_runtime import onnx_session
from zoo.training._files import write_atomically, write_error

logger = logging.getLogger(__name__)

CHUNK = 250  # images between two saved states of the file
BATCH_SIZE = 8  # the fastest for onnxruntime on one core, and little memory

Features = Float16[np.ndarray, "images cells channels"]


def feature_extractor(backbone: EfficientNetLite, stride: int) -> Callable[[Tensor], Tensor]:
    """Return a function from uint8 images to feature maps, with onnxruntime on a CPU where it is installed.

    Example:
        >>> extract = feature_extractor(EfficientNetLite().eval(), stride=16)
        >>> extract(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).shape
        torch.Size([2, 16, 112])
    """
    session = onnx_session(backbone, stride)

    def extract(images: Tensor) -> Tensor:
        if session is not None and images.device.type == "cpu":
            maps = torch.from_numpy(session(normalize(images).numpy()))
        else:
            with torch.inference_mode():
                maps = backbone.to(images.device)(normalize(images), stride)
        return maps.flatten(2).transpose(1, 2)

    return extract


def cached_features(
    images: Sequence[Tensor] | Tensor, digest: str, backbone: str, stride: int, cache: Path | None = None
) -> Features:
    """Return the feature maps of images from a memory-mapped file, which is computed when it is first needed.

    The file is in ``~/.cache/reinforce-zoo/features``, under a hash of images, weights and preprocessing. It is written
    in chunks with a checksum each: an interrupted computation continues after the last whole chunk, and a chunk whose
    checksum differs is computed again.

    Args:
        images: uint8 images of one size.
        digest: hash of the images' files.
        backbone: name of the backbone.
        stride: 16 or 32.
        cache: folder in the place of ``~/.cache/reinforce-zoo/features``.

    Raises:
        ModuleNotFoundError: the weights of the backbone are not installed.
        OSError: the cache cannot be written.
    """
    weights = hashlib.sha256(weights_path(backbone).read_bytes()).hexdigest()
    height, width = images[0].shape[1:]
    key = json.dumps([digest, weights, backbone, stride, height, width, "(x - 127) / 128", "float16"])
    folder = (cache or _cache_folder()) / hashlib.sha256(key.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):  # another process may compute the same
        return _complete(folder, images, backbone, stride)


def _complete(folder: Path, images: Sequence[Tensor] | Tensor, backbone: str, stride: int) -> Features:
    """Return the features in a folder, after those that are missing or damaged were computed."""
    path, checksums_path = folder / "features.float16", folder / "checksums.json"
    rows, columns, channels = feature_shape(backbone, stride, images[0].shape[-1])
    shape = (len(images), rows * columns, channels)
    bytes_per_image = 2 * math.prod(shape[1:])
    try:
        with open(path, "ab") as file:
            file.truncate(len(images) * bytes_per_image)
        features = np.memmap(path, np.float16, "r", shape=shape)
        checksums = _read_checksums(checksums_path)
        starts = range(0, len(images), CHUNK)
        missing = [i for i in starts if checksums.get(str(i)) != zlib.crc32(features[i : i + CHUNK].tobytes())]
        if missing:
            logger.info("Computing the features of %d images, once: they are kept in %s.", len(images), folder)
            extract = feature_extractor(load_backbone(backbone), stride)
        for start in missing:
            chunk = [images[i] for i in range(start, min(start + CHUNK, len(images)))]
            batches = [torch.stack(chunk[i : i + BATCH_SIZE]) for i in range(0, len(chunk), BATCH_SIZE)]
            content = torch.cat([extract(batch) for batch in batches]).to(torch.float16).numpy().tobytes()
            with open(path, "r+b") as chunks:  # not through the memory map: a full disk would kill the process
                chunks.seek(start * bytes_per_image)
                chunks.write(content)
            checksums[str(start)] = zlib.crc32(content)
            write_atomically(checksums_path, lambda file: file.write_text(json.dumps(checksums)))
    except OSError as error:
        raise write_error(path, error) from error
    return features


def _read_checksums(path: Path) -> dict[str, int]:
    """Return the checksum of each chunk by the index of its first image; none if the file is missing or damaged."""
    try:
        checksums = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return checksums if isinstance(checksums, dict) else {}


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "reinforce-zoo" / "features"
