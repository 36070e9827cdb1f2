import re
from itertools import pairwise

import numpy as np
import pytest
import torch

from zoo.data import captioned_scenes, load_captioned_scenes, load_mnist_5k
from zoo.data._scenes import CELL, DIGITS, SHAPES

NAMES = SHAPES + DIGITS
NUMBERS = {"num_train": 300, "num_validation": 40, "num_test": 30}


def load(**options):
    return load_captioned_scenes(**{**NUMBERS, **options})


@pytest.fixture(scope="module")
def data():
    return load(num_captions=3)


def objects(caption, boxes):
    """Name and box of each object, in the order of the caption."""
    return [(word, box) for word, box in zip(caption, boxes, strict=True) if word in NAMES]


def facts(caption, boxes):
    """What a caption states: the objects, and the relations of their boxes as 'second is left of first'."""
    found = objects(caption, boxes)
    relations = re.findall("above|below|left of|right of", " ".join(caption))
    stated = set()
    for (_, first), (_, second), relation in zip(found, found[1:], relations, strict=False):
        if relation in ("below", "right of"):
            first, second, relation = second, first, {"below": "above", "right of": "left of"}[relation]
        stated.add((second, relation, first))
    return sorted(found), stated


def cell(box):
    return box[0] // CELL, box[1] // CELL


def test_sets_have_the_numbers_and_sizes_asked_for(data):
    test = data.load_test()
    assert [len(part) for part in (data.train, data.validation, test)] == list(NUMBERS.values())
    assert data.train.images.shape == (300, 3, 84, 84)
    assert data.train.images.dtype == torch.uint8
    assert {len(captions) for captions in (*data.train.captions, *test.captions)} == {3}
    assert (data.name, data.image_size) == ("captioned-scenes", 84)


def test_word_with_a_box_is_the_name_of_an_object(data):
    for all_captions, all_boxes in zip(data.train.captions, data.train.boxes, strict=True):
        for caption, boxes in zip(all_captions, all_boxes, strict=True):
            assert [box is not None for box in boxes] == [word in NAMES for word in caption]


def test_box_lies_in_one_cell_and_contains_all_bright_pixels(data):
    for image, (caption, *_), (boxes, *_) in zip(data.train.images, data.train.captions, data.train.boxes, strict=True):
        brightness = image.amax(0)  # the ground reaches 83, dots 159, objects 263 before they are cut at 255
        for _, (top, left, bottom, right) in objects(caption, boxes):
            assert (top // CELL, left // CELL) == ((bottom - 1) // CELL, (right - 1) // CELL)
            assert (brightness[top:bottom, left:right] > 170).any()
            brightness[top:bottom, left:right] = 0
        assert (brightness <= 211).all()  # a pixel of a dot, of which an object covers half: (159 + 263) / 2


def test_first_caption_names_objects_from_top_to_bottom_with_the_relation_of_their_cells(data):
    counts = []
    for (caption, *_), (boxes, *_) in zip(data.train.captions, data.train.boxes, strict=True):
        found = objects(caption, boxes)
        counts.append(len(found))
        text = [f"a {name}" for name, _ in found]
        for i, (upper, lower) in enumerate(pairwise(cell(box) for _, box in found), 1):
            down, aside = lower[0] - upper[0], lower[1] - upper[1]
            assert down >= 2
            assert down != abs(aside)
            relation = "below" if down > abs(aside) else "right of" if aside > 0 else "left of"
            text[i] += f" {relation} it"
        assert " ".join(caption) == " and ".join(text)
    assert set(counts) == {1, 2, 3}


def test_paraphrases_state_the_same_facts_in_other_words(data):
    for captions, boxes in zip(data.train.captions, data.train.boxes, strict=True):
        stated = [facts(caption, places) for caption, places in zip(captions, boxes, strict=True)]
        assert stated[0] == stated[1] == stated[2]
        assert captions[2] == ("there", "is", *captions[0])
        assert objects(captions[1], boxes[1]) == objects(captions[0], boxes[0])[::-1]


def test_number_of_captions_changes_neither_images_nor_first_caption(data):
    one = load()
    assert torch.equal(one.train.images, data.train.images)
    assert [captions[:1] for captions in data.train.captions] == list(one.train.captions)
    assert [boxes[:1] for boxes in data.train.boxes] == list(one.train.boxes)


def test_scenes_are_those_of_the_seed(data):
    again, other = load(num_captions=3), load(num_captions=3, scene_seed=1)
    for ours, same, different in (
        (data.train, again.train, other.train),
        (data.validation, again.validation, other.validation),
        (data.load_test(), again.load_test(), other.load_test()),
    ):
        assert torch.equal(ours.images, same.images)
        assert ours.captions == same.captions
        assert ours.boxes == same.boxes
        assert ours.captions != different.captions


def test_test_set_does_not_depend_on_the_number_of_training_images(data):
    assert torch.equal(load(num_train=10).load_test().images, data.load_test().images)
    assert torch.equal(load(num_test=10).train.images, data.train.images)


def test_no_image_is_in_two_sets_or_twice_in_one(data):
    images = torch.cat([data.train.images, data.validation.images, data.load_test().images])
    assert len({image.numpy().tobytes() for image in images}) == len(images)


def test_global_random_state_is_neither_used_nor_changed(data):
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    load()
    assert np.array_equal(np.random.get_state()[1], before[0])
    assert torch.equal(torch.get_rng_state(), before[1])
    np.random.seed(7)
    torch.manual_seed(7)
    assert torch.equal(load().train.images, data.train.images)


def test_digits_of_each_set_are_those_of_the_same_set_of_mnist_5k(monkeypatch):
    used = []
    draw = captioned_scenes.draw_scenes

    def record(rng, scenes, digits, labels):
        used.append((digits, labels))
        return draw(rng, scenes, digits, labels)

    monkeypatch.setattr(captioned_scenes, "draw_scenes", record)
    load().load_test()
    mnist = load_mnist_5k()
    for (digits, labels), expected in zip(used, (mnist.train, mnist.validation, mnist.load_test()), strict=True):
        assert np.array_equal(digits, expected.images[:, 0])
        assert np.array_equal(labels, expected.labels)


def test_vocabulary_is_that_of_the_grammar_whatever_the_number_of_images(data):
    assert load_captioned_scenes(1, 1, 1).vocabulary == data.vocabulary
    used = {word for captions in data.train.captions for caption in captions for word in caption}
    assert used == set(data.vocabulary.words[2:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_train": 0}, "each set needs at least one image, got num_train=0"),
        ({"num_test": -1}, "each set needs at least one image, got num_test=-1"),
        ({"num_captions": 0}, "num_captions must be from 1 to 3, got 0"),
        ({"num_captions": 4}, "num_captions must be from 1 to 3, got 4"),
    ],
)
def test_option_without_meaning_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        load(**options)
