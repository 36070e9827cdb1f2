import logging
import os
import re
from collections import Counter
from pathlib import Path

from zoo.data._captioned_files import caption_data, format_examples
from zoo.data._image_files import has_image_suffix, is_hidden
from zoo.data._paths import resolve_folder
from zoo.data.captions import Caption, CaptionData
from zoo.data.images import DatasetUnavailableError
from zoo.data.vocabulary import tokenize

logger = logging.getLogger("zoo.data")

IMAGE_FOLDERS = ("images", "Flicker8k_Dataset", "Flickr8k_Dataset")  # the second is the published name
TOKENS = "Flickr8k.token.txt"
LISTS = {
    "train": "Flickr_8k.trainImages.txt",
    "validation": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}


def load_flickr8k(root: str | Path | None = None, size: int = 224, min_count: int = 5) -> CaptionData:
    r"""Load Flickr8k: photographs with five captions each, in the official split of 6,000, 1,000 and 1,000.

    Hodosh, Young & Hockenmaier, "Framing image description as a ranking task", 2013. ``root`` contains the photographs
    in ``images`` or ``Flicker8k_Dataset``, ``Flickr8k.token.txt``, and ``Flickr_8k.trainImages.txt``,
    ``Flickr_8k.devImages.txt`` and ``Flickr_8k.testImages.txt``. The captions are split by ``tokenize``. Known
    errors of the published files are skipped, and counted in a warning: captions of names such as ``….jpg.1`` without a
    photograph, and lines of a list with a name that has neither a file nor captions.

    Args:
        root: the folder; None for ``$ZOO_DATA/flickr8k``.
        size: height and width to which every photograph is stretched, in pixels.
        min_count: minimum number of occurrences in the training captions for a word to be in the vocabulary.

    Raises:
        DatasetUnavailableError: ``root`` is None, and there is no ``$ZOO_DATA/flickr8k``.
        FileNotFoundError: there is no such folder, or a list, the captions or a photograph are missing.
        ValueError: a line is damaged, a photograph has no captions, captions have no photograph, or a name occurs
            twice in a list, in two lists, or twice among the captions.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> with TemporaryDirectory() as root:
        ...     Path(root, "images").mkdir()
        ...     for name, file in zip("abc", LISTS.values()):
        ...         Image.new("RGB", (8, 6)).save(Path(root, "images", f"{name}.jpg"))
        ...         _ = Path(root, file).write_text(f"{name}.jpg")
        ...     _ = Path(root, TOKENS).write_text("a.jpg#0\tA dog .\nb.jpg#0\tTwo dogs .\nc.jpg#0\tA cat .")
        ...     data = load_flickr8k(root, size=4, min_count=1)
        ...     image = data.train.images[0]
        >>> image.shape, data.validation.captions, data.vocabulary.words
        (torch.Size([3, 4, 4]), ((('two', 'dogs'),),), ('<eos>', '<unk>', 'a', 'dog'))
    """
    root = resolve_folder(find_flickr8k() if root is None else root)
    folder = next((root / name for name in IMAGE_FOLDERS if (root / name).is_dir()), None)
    if folder is None:
        raise FileNotFoundError(f"{root} contains neither images nor Flicker8k_Dataset; put the photographs there")
    present = {path.name for path in folder.iterdir() if has_image_suffix(path) and not is_hidden(path)}
    captions = _read_captions(root / TOKENS, present)
    if uncaptioned := sorted(present - captions.keys()):
        raise ValueError(
            f"{folder / uncaptioned[0]} has no caption in {root / TOKENS}"
            f"{f', nor have {len(uncaptioned) - 1} more' if uncaptioned[1:] else ''}; add its captions or remove it"
        )
    splits = {split: _read_list(root / file, present | captions.keys()) for split, file in LISTS.items()}
    listed = {name for names in splits.values() for name in names}
    if lost := sorted(captions.keys() - present - listed):
        raise ValueError(
            f"{root / TOKENS} has captions of {lost[0]}, but {folder} has no such photograph"
            f"{f', nor those of {len(lost) - 1} more' if lost[1:] else ''}; restore it, or remove its captions"
        )
    return caption_data("flickr8k", folder, splits, captions, size, min_count, root / TOKENS)


def find_flickr8k() -> Path:
    """Return ``$ZOO_DATA/flickr8k``.

    Raises:
        DatasetUnavailableError: there is no such folder, or ``$ZOO_DATA`` is not set.

    Example:
        >>> find_flickr8k()  # doctest: +SKIP
        PosixPath('…/flickr8k')
    """
    expected = "Flickr8k is expected in $ZOO_DATA/flickr8k, or in the folder that data.root names"
    if not (data := os.environ.get("ZOO_DATA")):
        raise DatasetUnavailableError(f"{expected}, but ZOO_DATA is not set")
    if not (folder := Path(data, "flickr8k")).is_dir():
        raise DatasetUnavailableError(f"{expected}, but there is no {folder}")
    return folder


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (FileNotFoundError, IsADirectoryError) as error:
        files = ", ".join((TOKENS, *LISTS.values()))
        raise FileNotFoundError(f"there is no file {path}; put {files} into the folder") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text ({error}); replace it with an intact copy") from error


def _read_captions(path: Path, present: set[str]) -> dict[str, list[Caption]]:
    """Return the captions of each photograph by its name, in the order of their numbers."""
    numbered: dict[str, dict[int, Caption]] = {}
    stray: Counter[str] = Counter()
    for number, line in enumerate(_read_lines(path), start=1):
        if not line.strip():
            continue
        match = re.fullmatch(r"([^\t]+)#(\d+)\t(.*)", line)
        if match is None:
            raise ValueError(
                f"line {number} of {path} is {line[:60]!r} instead of NAME.jpg#NUMBER, a tab and a caption; replace "
                "the file with an intact copy"
            )
        name, index, text = match[1], int(match[2]), match[3]
        if name not in present and re.search(r"\.\w+\.\d+$", name):
            stray[name] += 1
        elif index in numbered.setdefault(name, {}):
            raise ValueError(f"line {number} of {path} has caption {index} of {name} a second time; remove one")
        else:
            numbered[name][index] = tokenize(text)
    if stray:
        logger.warning(
            "Skipped %d captions in %s without a photograph: %s.", stray.total(), path, format_examples(stray)
        )
    return {name: [captions[index] for index in sorted(captions)] for name, captions in numbered.items()}


def _read_list(path: Path, known: set[str]) -> list[str]:
    """Return the names in a list that are known; others are skipped with a warning."""
    names = [line.strip() for line in _read_lines(path) if line.strip()]
    if stray := Counter(name for name in names if name not in known):
        logger.warning("Skipped %d lines of %s with an unknown name: %s.", stray.total(), path, format_examples(stray))
    return [name for name in names if name not in stray]
