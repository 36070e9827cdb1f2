import gzip
import hashlib
import logging
import os
import zlib
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from zoo.data.download import fetch
from zoo.data.idx import TEST_FILES, TRAIN_FILES, read_labelled_images
from zoo.data.images import ImageData
from zoo.data.paths import user_path
from zoo.data.split import hold_out

logger = logging.getLogger("zoo.data")

DIGITS = tuple("0123456789")

CHECKSUMS = {  # md5 of the unpacked files
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}

PATIENCE = 10.0  # seconds to wait, over all mirrors together, where nothing answers


class MnistUnavailable(Exception):
    """MNIST is not on this machine and could not be downloaded; the message says what was tried."""


def load_mnist(validation: int = 5000, split_seed: int = 0) -> ImageData:
    """MNIST: 60,000 handwritten digits to train on and 10,000 to test, grey, 28 × 28.

    LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", 1998.

    Args:
        validation: how many training digits to hold out; 0 trains on all 60,000.
        split_seed: of the choice of the held out; independent of the seed of the training.

    Raises:
        MnistUnavailable: there are no files and no network; ``load_mnist_5k`` needs neither.
        ValueError: a file is damaged, or ``validation`` leaves nothing to train on.

    Example:
        >>> data = load_mnist()  # doctest: +SKIP
        >>> len(data.train), len(data.validation), data.image_shape  # doctest: +SKIP
        (55000, 5000, (1, 28, 28))
    """
    folder = find_mnist()
    everything = read_labelled_images(*(folder / name for name in TRAIN_FILES))
    train, held_out = hold_out(everything, validation, split_seed)
    load_test = partial(read_labelled_images, *(folder / name for name in TEST_FILES))
    return ImageData("mnist", train, held_out, load_test, DIGITS, fill_value=(0.0,))


def find_mnist() -> Path:
    """Folder with the four intact MNIST files, downloaded first where they are missing.

    Looks into ``$ZOO_DATA/MNIST/raw``, then into the user's cache, ``~/.cache/reinforce-zoo/MNIST/raw``; a
    download is kept in the first of the two that can be written to.

    Raises:
        MnistUnavailable: there are no files, and none could be downloaded.
        ValueError: a file has the wrong checksum.

    Example:
        >>> find_mnist()  # doctest: +SKIP
        PosixPath('/home/me/.cache/reinforce-zoo/MNIST/raw')
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "reinforce-zoo")
    roots = [user_path(root) for root in (os.environ.get("ZOO_DATA"), cache) if root]
    folders = [root / "MNIST" / "raw" for root in roots]
    for folder in folders:
        if all(os.path.isfile(folder / name) for name in CHECKSUMS):
            verify(folder)
            return folder
        if folder != folders[-1]:
            logger.warning("$ZOO_DATA is set, but %s does not hold the four MNIST files: looking elsewhere.", folder)
    return download(folders)


def verify(folder: Path) -> None:
    """Compare those of the four files that ``folder`` holds with their checksums.

    Raises:
        ValueError: one differs.
    """
    for name, checksum in CHECKSUMS.items():
        path = folder / name
        if path.is_file() and md5(path.read_bytes()) != checksum:
            raise ValueError(
                f"{path} is not the original MNIST file (its md5 is not {checksum}); "
                "delete it to have it downloaded again, or replace it with an intact copy"
            )


def download(folders: list[Path]) -> Path:
    """Put the missing ones of the four files into the first folder that can be written to.

    Raises:
        MnistUnavailable: no mirror gave a file, or no folder can keep it.
        ValueError: a file that is there already has the wrong checksum.
    """
    folder = next(filter(can_be_written, folders), None)
    if folder is None:
        raise MnistUnavailable(
            f"MNIST is not on this machine, and it cannot be kept: {' and '.join(map(str, folders))} "
            "cannot be written to; set ZOO_DATA to a folder that can"
        )
    verify(folder)
    logger.info("Downloading MNIST (11 MB) into %s.", folder)
    for name in CHECKSUMS:
        if not (folder / name).is_file():
            save(download_file(name), folder / name)
    return folder


def download_file(name: str) -> bytes:
    """Unpacked content of one of the four files, from the first mirror that gives it intact.

    Raises:
        MnistUnavailable: no mirror does.
    """
    from torchvision.datasets import MNIST  # takes seconds to import, and only a download needs it

    tried = []
    for mirror in MNIST.mirrors:
        url = f"{mirror}{name}.gz"
        try:
            content = gzip.decompress(fetch(url, PATIENCE / len(MNIST.mirrors)))
        except (OSError, EOFError, zlib.error) as error:
            tried.append(f"{url} ({error})")
            continue
        if md5(content) == CHECKSUMS[name]:
            return content
        tried.append(f"{url} (wrong checksum)")
    raise MnistUnavailable(
        f"MNIST is not on this machine and could not be downloaded: tried {', '.join(tried)}; "
        f"put {', '.join(CHECKSUMS)} into $ZOO_DATA/MNIST/raw, or use the 5,000 digits of load_mnist_5k"
    )


def save(content: bytes, path: Path) -> None:
    """Write a file as a whole or, if interrupted, not at all.

    Raises:
        MnistUnavailable: it cannot be written, for instance on a full disk.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent, prefix=".download-") as temporary:
            partial_file = Path(temporary, path.name)
            partial_file.write_bytes(content)
            partial_file.replace(path)
    except OSError as error:
        raise MnistUnavailable(f"MNIST was downloaded, but cannot be kept: {error}") from error


def can_be_written(folder: Path) -> bool:
    """Whether ``folder``, or what would have to be made to get it, can be written to."""
    existing = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    return existing.is_dir() and os.access(existing, os.W_OK)


def md5(content: bytes) -> str:
    """Checksum in hexadecimal."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
