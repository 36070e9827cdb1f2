from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import torch

from zoo.data._scenes import DIGITS, SHAPES, SIZE, draw_scenes, sample_scenes
from zoo.data.captions import Box, Caption, CaptionData, CaptionSet
from zoo.data.images import ImageSet
from zoo.data.mnist_5k import load_mnist_5k
from zoo.data.vocabulary import Vocabulary

OPPOSITE = {"below": "above", "left of": "right of", "right of": "left of"}
MAX_CAPTIONS = 3
Word = tuple[str, Box | None]


def load_captioned_scenes(
    num_train: int = 40_000,
    num_validation: int = 1_000,
    num_test: int = 1_000,
    num_captions: int = 1,
    scene_seed: int = 0,
) -> CaptionData:
    """Generate captioned scenes: colored shapes and handwritten digits on a dark ground, without a download.

    An image of 84×84 pixels is a grid of 7×7 cells of 12×12 pixels. One to three objects, each within a cell of its
    own, are squares, circles, triangles, diamonds, crosses or, one in four, digits of ``load_mnist_5k`` at half their
    size: of its training, validation and test digits in the sets of these names. The ground gets lighter to the right
    in red and to the bottom in blue, so that a cell alone shows where it is; noise and gray dots are not captioned.

    The first caption names the objects from top to bottom, "a square and a seven below it and a circle left of it",
    where *it* is the object before. Successive objects are at least two rows apart; the lower one is
    *below* the other if they are farther apart vertically than horizontally, else *left of* or *right of* it. Both
    distances are never equal. Further captions are paraphrases: the objects from bottom to top, with *above*, and the
    first one after *there is*. ``boxes`` contains for the name of an object the smallest box around its pixels, and
    None for other words. Captions do not tell the colors: a second word for an object, such as *red*, could be written
    from memory, so that it would not tell where a model attends.

    Args:
        num_train: number of training images.
        num_validation: number of validation images.
        num_test: number of test images.
        num_captions: number of captions per image, 1 to 3.
        scene_seed: seed of all scenes; training, validation and test images differ, and do not depend on each other's
            number.

    Raises:
        ValueError: a set is empty, or ``num_captions`` is not from 1 to 3.

    Example:
        >>> data = load_captioned_scenes(num_train=100, num_validation=10, num_test=10, num_captions=2)
        >>> data.train.images.shape, data.image_size, len(data.vocabulary)
        (torch.Size([100, 3, 84, 84]), 84, 27)
        >>> [box is None for box in data.train.boxes[0][0][:2]]  # "a" and the name of an object
        [True, False]
    """
    numbers = {"num_train": num_train, "num_validation": num_validation, "num_test": num_test}
    if too_few := [f"{name}={number}" for name, number in numbers.items() if number < 1]:
        raise ValueError(f"each set needs at least one image, got {', '.join(too_few)}")
    if not 1 <= num_captions <= MAX_CAPTIONS:
        raise ValueError(f"num_captions must be from 1 to {MAX_CAPTIONS}, got {num_captions}")
    digits = load_mnist_5k()
    assert digits.validation is not None
    generate = partial(_generate, num_captions=num_captions)

    def load_test() -> CaptionSet:
        return generate(digits.load_test(), num_test, (scene_seed, 2))

    return CaptionData(
        "captioned-scenes",
        generate(digits.train, num_train, (scene_seed, 0)),
        generate(digits.validation, num_validation, (scene_seed, 1)),
        load_test,
        Vocabulary.from_captions([_words()], min_count=1),
        image_size=SIZE,
    )


def _words() -> Sequence[str]:
    """Return all words of the captions."""
    relations = [word for both in OPPOSITE.items() for relation in both for word in relation.split()]
    return ("there", "is", "a", "and", "it", *SHAPES, *DIGITS, *relations)


def _generate(digits: ImageSet, count: int, seed: tuple[int, int], num_captions: int) -> CaptionSet:
    rng = np.random.default_rng(seed)
    scenes = sample_scenes(rng, count)
    images, all_boxes = draw_scenes(rng, scenes, digits.images[:, 0].numpy(), digits.labels.numpy())
    names, places = SHAPES + DIGITS, scenes.cells.tolist()
    phrases: list[list[Word]] = [
        [("a", None), (names[name], tuple(box))]
        for name, box in zip(scenes.names.tolist(), all_boxes.tolist(), strict=True)
    ]
    captions: list[tuple[Caption, ...]] = []
    boxes: list[tuple[tuple[Box | None, ...], ...]] = []
    first = 0
    for number in scenes.counts.tolist():
        here = slice(first, first + number)
        paraphrases = _captions(phrases[here], places[here])[:num_captions]
        captions.append(tuple(tuple(word for word, _ in caption) for caption in paraphrases))
        boxes.append(tuple(tuple(box for _, box in caption) for caption in paraphrases))
        first += number
    return CaptionSet(torch.from_numpy(images), tuple(captions), tuple(boxes))


def _captions(phrases: list[list[Word]], cells: list[list[int]]) -> tuple[list[Word], ...]:
    """Return the captions of a scene with these objects, from top to bottom."""
    relations = [_relation(lower[0] - upper[0], lower[1] - upper[1]) for upper, lower in pairwise(cells)]
    downward = _join(phrases, relations)
    upward = _join(phrases[::-1], [OPPOSITE[relation] for relation in reversed(relations)])
    return downward, upward, [*_function_words("there is"), *downward]


def _join(phrases: list[list[Word]], relations: list[str]) -> list[Word]:
    """Return a caption of objects, each with its relation to the one before."""
    caption = list(phrases[0])
    for phrase, relation in zip(phrases[1:], relations, strict=True):
        caption += [*_function_words("and"), *phrase, *_function_words(f"{relation} it")]
    return caption


def _relation(down: int, aside: int) -> str:
    """Return the relation of an object ``down`` rows below another, and ``aside`` columns to the right of it."""
    if down > abs(aside):
        return "below"
    return "right of" if aside > 0 else "left of"


def _function_words(text: str) -> list[Word]:
    return [(word, None) for word in text.split()]
