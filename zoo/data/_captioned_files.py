"""Captioned images in files: what the readers of Flickr8k and of Karpathy's layout have in common."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

from zoo.data.captions import Caption, CaptionData, CaptionSet, ImageFiles
from zoo.data.vocabulary import Vocabulary

logger = logging.getLogger("zoo.data")

Splits = Mapping[str, Sequence[str]]  # names of the images of train, validation and test


def caption_data(
    name: str,
    folder: Path,
    splits: Splits,
    captions: Mapping[str, Sequence[Caption]],
    size: int,
    min_count: int,
    source: Path,
) -> CaptionData:
    """Return the data of images by their names in a folder, with captions from a file, after checking them."""
    _check_splits(splits, source)
    nonempty = {
        name: tuple(caption for caption in captions.get(name, ()) if caption) for name in chain(*splits.values())
    }
    if empty := sum(len(captions.get(name, ())) - len(kept) for name, kept in nonempty.items()):
        logger.warning("Skipped %d captions without a word in %s.", empty, source)
    for image, kept in nonempty.items():
        if not kept:
            raise ValueError(f"{image} has no caption in {source}; add one, or remove the image from its split")
    missing = [image for image in nonempty if not (folder / image).is_file()]
    if missing:
        raise FileNotFoundError(
            f"there is no file {folder / missing[0]}, which has captions in {source}"
            f"{f', and {len(missing) - 1} more are missing' if missing[1:] else ''}; restore it, or remove its name"
        )

    def load(split: str) -> CaptionSet:
        paths = [folder / image for image in splits[split]]
        return CaptionSet(ImageFiles(paths, size), tuple(nonempty[image] for image in splits[split]))

    train = load("train")
    vocabulary = Vocabulary.from_captions(chain.from_iterable(train.captions), min_count)
    return CaptionData(name, train, load("validation"), partial(load, "test"), vocabulary, size)


def _check_splits(splits: Splits, source: Path) -> None:
    """Check that no split is empty and that no image is in two, or twice in one."""
    split_of: dict[str, str] = {}
    for split, names in splits.items():
        if not names:
            raise ValueError(f"there are no images for {split} in {source.parent}; add the names of some")
        for name in names:
            if name in split_of:
                where = f"twice in {split}" if split_of[name] == split else f"in both {split_of[name]} and {split}"
                raise ValueError(f"{name} is {where}; remove one of the two")
            split_of[name] = split


def find_image_folder(root: Path, names: Sequence[str]) -> Path:
    """Return the first of the usual folders that exists, else the folder itself."""
    return next((root / name for name in names if (root / name).is_dir()), root)


def format_examples(counts: Counter[str]) -> str:
    """Return up to three names, for a message."""
    return ", ".join(list(counts)[:3]) + (", …" if len(counts) > 3 else "")
