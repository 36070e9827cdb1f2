from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from PIL import Image, UnidentifiedImageError

COPIES = frozenset({"__MACOSX", "@eaDir"})  # folders in which macOS and file servers keep copies of the images beside
WITHOUT_PIXELS = frozenset({"BUFR", "GRIB", "HDF5", "MPEG", "WMF"})  # formats that Pillow recognises, and cannot decode


def is_hidden(path: Path) -> bool:
    """Whether a file or folder is none of a user's own: its name begins with a dot, or it holds copies."""
    return path.name.startswith(".") or path.name in COPIES


def image_files(folder: Path, root: Path, skipped: Counter[str]) -> list[Path]:
    """Paths of all images in a folder and the folders within it, in order.

    A file is an image if its suffix, in capitals or not, is that of an image format, or its content is.

    Args:
        folder: in which to look.
        root: a folder above it; links that lead back to it, or to a folder between, are not followed.
        skipped: counts what else there is, by kind: hidden files, files of other kinds, pipes.

    Raises:
        FileNotFoundError: a link leads nowhere.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as name:
        ...     _ = Path(name, "cat.JPG").write_bytes(b""), Path(name, "Thumbs.db").write_bytes(b"")
        ...     skipped = Counter()
        ...     [path.name for path in image_files(Path(name), Path(name), skipped)], dict(skipped)
        (['cat.JPG'], {'.db': 1})
    """
    between = [path for path in (folder, *folder.parents) if path.is_relative_to(root) and path != folder]
    return list(_walk(folder, frozenset(map(_identity, between)), skipped))


def _walk(folder: Path, above: frozenset[tuple[int, int]], skipped: Counter[str]) -> Iterator[Path]:
    if (here := _identity(folder)) in above:
        skipped["link to a folder above"] += 1
        return
    for path in sorted(folder.iterdir()):
        if is_hidden(path):
            skipped["hidden"] += 1
        elif path.is_dir():
            yield from _walk(path, above | {here}, skipped)
        elif path.is_symlink() and not path.exists():
            raise FileNotFoundError(f"{path} is a link to a file that is not there; fetch the file or correct the link")
        elif not path.is_file():
            skipped["pipe, socket or device"] += 1  # to open one may take for ever
        elif _is_image(path):
            yield path
        else:
            skipped[path.suffix.lower() or "without suffix"] += 1


def _identity(folder: Path) -> tuple[int, int]:
    """Device and number of a folder, the same for all links to it."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def has_image_suffix(path: Path) -> bool:
    """Whether a file is called like an image.

    Example:
        >>> has_image_suffix(Path("cat.JPG")), has_image_suffix(Path("cat.txt"))
        (True, False)
    """
    return path.suffix.lower() in _suffixes()


def _is_image(path: Path) -> bool:
    if has_image_suffix(path):
        return True
    try:
        with Image.open(path) as file:
            return file.format not in WITHOUT_PIXELS
    except UnidentifiedImageError:
        return False
    except Exception:  # it is an image of that format, but a damaged one: decoding it says what is wrong
        return True


@cache
def _suffixes() -> frozenset[str]:
    return frozenset(
        suffix
        for suffix, name in Image.registered_extensions().items()
        if name in Image.OPEN and name not in WITHOUT_PIXELS
    )


def described(skipped: Counter[str]) -> str:
    """Write out how much was skipped of each kind.

    Example:
        >>> described(Counter({".txt": 12, "hidden": 1}))
        '12 × .txt, 1 × hidden'
    """
    return ", ".join(f"{count:,} × {kind}" for kind, count in skipped.most_common())
