import gzip
import hashlib
import logging
import os
import zlib
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from zoo.data._http import fetch
from zoo.data._paths import expand_user
from zoo.data._splits import split_validation
from zoo.data.idx import TEST_FILES, TRAIN_FILES, read_idx
from zoo.data.images import DatasetUnavailableError, ImageData, ImageSet

logger = logging.getLogger("zoo.data")

CLASSES = tuple("0123456789")
CHECKSUMS = {  # MD5 of the unpacked files
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
TIMEOUT = 10.0  # seconds for all mirrors together


def load_mnist(validation: int = 5000, split_seed: int = 0) -> ImageData:
    """Load MNIST: 60,000 handwritten digits for training and 10,000 for testing, gray, 28×28.

    LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", 1998.

    Args:
        validation: number of training digits to hold out; 0 trains on all 60,000.
        split_seed: seed of the split, independent of the training seed.

    Raises:
        DatasetUnavailableError: there are no files and no network; ``load_mnist_5k`` needs neither.
        ValueError: a file is damaged, or ``validation`` leaves a class without training digits.

    Example:
        >>> data = load_mnist()  # doctest: +SKIP
        >>> len(data.train), len(data.validation), data.image_shape  # doctest: +SKIP
        (55000, 5000, (1, 28, 28))
    """
    folder = find_mnist()
    train, held_out = split_validation(_read(folder, TRAIN_FILES), validation, split_seed)
    return ImageData("mnist", train, held_out, partial(_read, folder, TEST_FILES), CLASSES, fill_value=(0.0,))


def _read(folder: Path, names: tuple[str, str]) -> ImageSet:
    images, labels = (read_idx(folder / name) for name in names)
    return ImageSet(images.unsqueeze(1), labels.long())


def find_mnist() -> Path:
    """Return a folder with the four MNIST files, verified by checksum; download them if they are missing.

    ``$ZOO_DATA/MNIST/raw`` is searched first, then the user's cache, ``~/.cache/reinforce-zoo/MNIST/raw``. A download
    is saved in the first of the two that is writable.

    Raises:
        DatasetUnavailableError: there are no files, and they could not be downloaded.
        ValueError: a file has the wrong checksum.

    Example:
        >>> find_mnist()  # doctest: +SKIP
        PosixPath('/home/me/.cache/reinforce-zoo/MNIST/raw')
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "reinforce-zoo")
    roots = [expand_user(root) for root in (os.environ.get("ZOO_DATA"), cache) if root]
    folders = [root / "MNIST" / "raw" for root in roots]
    for folder in folders:
        if all(os.path.isfile(folder / name) for name in CHECKSUMS):
            _verify(folder)
            return folder
        if folder != folders[-1]:
            logger.warning("$ZOO_DATA is set, but %s does not contain the four MNIST files: using the cache.", folder)
    return _download(folders)


def _verify(folder: Path) -> None:
    """Compare the checksums of those files that exist."""
    for name, checksum in CHECKSUMS.items():
        path = folder / name
        if path.is_file() and _md5(path.read_bytes()) != checksum:
            raise ValueError(
                f"{path} is not the original MNIST file (its md5 is not {checksum}); "
                "delete it to have it downloaded again, or replace it with an intact copy"
            )


def _download(folders: list[Path]) -> Path:
    """Download the missing files into the first writable folder, and return it."""
    folder = next(filter(_is_writable, folders), None)
    if folder is None:
        raise DatasetUnavailableError(
            f"MNIST is missing, and a download cannot be saved: {' and '.join(map(str, folders))} are not writable; "
            "set ZOO_DATA to a writable folder"
        )
    _verify(folder)
    logger.info("Downloading MNIST (11 MB) into %s.", folder)
    for name in CHECKSUMS:
        if not (folder / name).is_file():
            _save(_download_file(name), folder / name)
    return folder


def _download_file(name: str) -> bytes:
    """Return the unpacked content of a file, from the first mirror that has it intact."""
    from torchvision.datasets import MNIST  # takes seconds to import, and only a download needs it

    tried = []
    for mirror in MNIST.mirrors:
        url = f"{mirror}{name}.gz"
        try:
            content = gzip.decompress(fetch(url, TIMEOUT / len(MNIST.mirrors)))
        except (OSError, EOFError, zlib.error) as error:
            tried.append(f"{url} ({error})")
            continue
        if _md5(content) == CHECKSUMS[name]:
            return content
        tried.append(f"{url} (wrong checksum)")
    raise DatasetUnavailableError(
        f"MNIST is missing and could not be downloaded: tried {', '.join(tried)}; "
        f"put {', '.join(CHECKSUMS)} into $ZOO_DATA/MNIST/raw, or use the 5,000 digits of load_mnist_5k"
    )


def _save(content: bytes, path: Path) -> None:
    """Write a file atomically."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent, prefix=".download-") as temporary:
            partial_file = Path(temporary, path.name)
            partial_file.write_bytes(content)
            partial_file.replace(path)
    except OSError as error:
        raise DatasetUnavailableError(f"MNIST was downloaded, but cannot be saved: {error}") from error


def _is_writable(folder: Path) -> bool:
    """Return whether ``folder``, or its first existing parent, is writable."""
    existing = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    return existing.is_dir() and os.access(existing, os.W_OK)


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
