from collections.abc import Mapping
from json import loads
from pathlib import Path
from typing import Any

from zoo.data._captioned_files import caption_data, find_image_folder
from zoo.data._paths import resolve_folder
from zoo.data.captions import Caption, CaptionData
from zoo.data.vocabulary import tokenize

IMAGE_FOLDERS = ("images", "Flicker8k_Dataset", "flickr30k-images", "flickr30k_images")
SPLITS = {"train": "train", "restval": "train", "val": "validation", "test": "test"}


def load_karpathy(
    root: str | Path, json: str = "dataset.json", size: int = 224, min_count: int = 5, restval: bool = True
) -> CaptionData:
    """Load Flickr8k, Flickr30k or COCO in the splits of Karpathy & Fei-Fei.

    Karpathy & Fei-Fei, "Deep visual-semantic alignments for generating image descriptions", 2015. ``root`` contains
    ``dataset.json`` and the images, in ``images``, under the published name of the folder, or in ``root`` itself: for
    COCO ``train2014`` and ``val2014``. Captions are the ``tokens`` in the file; a sentence without ``tokens`` is
    split by ``tokenize``.

    Args:
        root: the folder; its name becomes the name of the data.
        json: name of the file with captions and splits, in ``root``.
        size: height and width to which every image is stretched, in pixels.
        min_count: minimum number of occurrences in the training captions for a word to be in the vocabulary.
        restval: whether the images of COCO's split ``restval`` are training images; else they are left out.

    Raises:
        FileNotFoundError: there is no such folder, or the file or an image is missing.
        ValueError: the file is damaged or has another layout, an image has no captions, or is named twice.

    Example:
        >>> from json import dumps
        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> with TemporaryDirectory() as root:
        ...     images = []
        ...     for split in ("train", "val", "test"):
        ...         Image.new("RGB", (8, 6)).save(Path(root, f"{split}.jpg"))
        ...         sentences = [{"tokens": ["a", split], "raw": f"A {split}."}]
        ...         images.append({"filename": f"{split}.jpg", "split": split, "sentences": sentences})
        ...     _ = Path(root, "dataset.json").write_text(dumps({"images": images}))
        ...     data = load_karpathy(root, size=4, min_count=1)
        >>> data.validation.captions, data.vocabulary.words
        (((('a', 'val'),),), ('<eos>', '<unk>', 'a', 'train'))
    """
    root = resolve_folder(root)
    path = root / json
    splits: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    captions: dict[str, list[Caption]] = {}
    for index, entry in enumerate(_read_entries(path)):
        name, split, texts = _parse(entry, f"image {index} in {path}")
        if split != "restval" or restval:
            splits[SPLITS[split]].append(name)
            captions[name] = texts
    return caption_data(root.name, find_image_folder(root, IMAGE_FOLDERS), splits, captions, size, min_count, path)


def _read_entries(path: Path) -> list[Any]:
    try:
        content = loads(path.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise FileNotFoundError(
            f"there is no file {path}; put Karpathy's file there, or set json to its name"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}); replace it with an intact copy") from error
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise ValueError(f'{path} has no list "images"; use the dataset.json that Karpathy published')
    return content["images"]


def _parse(entry: Any, where: str) -> tuple[str, str, list[Caption]]:
    """Return name, split and captions of an image."""
    if not isinstance(entry, dict) or not isinstance(entry.get("filename"), str) or not entry["filename"]:
        raise ValueError(f'{where} has no "filename"; replace the file with an intact copy')
    folder, split = entry.get("filepath", ""), entry.get("split")
    name = f"{folder}/{entry['filename']}" if folder else entry["filename"]
    if not isinstance(split, str) or split not in SPLITS:
        raise ValueError(f"{where}, {name}, is in the split {split!r}; it must be one of {', '.join(SPLITS)}")
    sentences = entry.get("sentences")
    if not isinstance(sentences, list):
        raise ValueError(f'{where}, {name}, has no list "sentences"; replace the file with an intact copy')
    return name, split, [_tokens(sentence, f"{where}, {name},") for sentence in sentences]


def _tokens(sentence: Any, where: str) -> Caption:
    found: Mapping[str, Any] = sentence if isinstance(sentence, dict) else {}
    tokens, raw = found.get("tokens"), found.get("raw")
    if isinstance(tokens, list) and all(isinstance(token, str) for token in tokens):
        return tuple(tokens)
    if tokens is None and isinstance(raw, str):
        return tokenize(raw)
    raise ValueError(
        f'{where} has a sentence with neither "tokens" nor "raw" text; replace the file with an intact copy'
    )
