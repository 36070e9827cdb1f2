import math
from collections import defaultdict
from itertools import count

import pytest
import torch

from zoo.attention.captioning import CiderD

REFERENCES = [
    ["a dog runs on the grass", "the brown dog is running"],
    ["two men in red shirts play", "two men play a game", "men play"],
    ["a red bird"],
]
CANDIDATES = ["a dog is running on the the grass", "two men play football", "a bird in a tree"]
TWO = [[[1, 2]], [[3, 2]]]  # log 2 is the weight of all n-grams but (2,), which both images have


def split(captions):
    return [caption.split() for caption in captions]


def test_scores_of_small_corpus_are_those_of_pycocoevalcap():
    found = CiderD([split(captions) for captions in REFERENCES]).scores(split(CANDIDATES))
    assert found.tolist() == pytest.approx([2.63941090528734, 3.1642063288846574, 1.2809201643241654], abs=1e-12)


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        ([1, 2], 10.0),
        ([1], 10 * math.exp(-1 / 72) / 2),  # no bigram, and a token too short
        ([1, 1], 10 / 4),  # the count is clipped to the reference's: 1/2 for n = 1, where the cosine is 1
        ([2, 2], 0.0),  # a word that is in the references of all images has no weight
        ([1, 9], 10 / 2 / math.sqrt(2)),  # an unknown word has the weight log 2
        ([], 0.0),
    ],
)
def test_score_with_two_orders_is_the_one_by_hand(candidate, expected):
    assert CiderD(TWO, max_order=2).scores([candidate], images=[0]).item() == pytest.approx(expected, abs=1e-12)


def test_word_in_several_references_of_an_image_counts_as_one_document():
    # "a" is in both references of the first of two images: its weight is log 2, not 0.
    assert CiderD([[["a"], ["a"]], [["b"]]], max_order=1).scores([["a"], ["b"]]).tolist() == pytest.approx([10, 10])


def test_score_is_the_mean_over_references():
    cider = CiderD([[["a"], ["c"]], [["b"]]], max_order=1)
    assert cider.scores([["a"]], images=[0]).item() == pytest.approx(10 / 2)


def test_sigma_is_the_width_of_the_length_penalty():
    cider = CiderD([[["a"]], [["b"]]], max_order=1, sigma=2.0)
    # All four tokens match, clipped to one: 1/4 of the weight, at a difference of 3 in length.
    assert cider.scores([["a"] * 4], images=[0]).item() == pytest.approx(10 / 4 * math.exp(-9 / 8))


def test_document_frequencies_come_from_the_corpus():
    corpus = [[[1, 2]], [[1, 2]], [[3]]]
    cider = CiderD(TWO, max_order=1, corpus=corpus)
    first, second = math.log(3 / 2), math.log(3 / 2)
    # Token 9 is not in the corpus, and has the weight log 3 as if it were in one image.
    expected = 10 * (first * first) / (math.hypot(first, second) * math.hypot(first, math.log(3)))
    assert cider.scores([[1, 9]], images=[0]).item() == pytest.approx(expected)


def test_samples_of_an_image_are_scored_against_its_references():
    cider = CiderD([split(captions) for captions in REFERENCES])
    found = cider.scores(split([CANDIDATES[1], CANDIDATES[0], CANDIDATES[1]]), images=[1, 0, 0])
    one_each = cider.scores(split(CANDIDATES))
    assert torch.equal(found[:2], one_each[[1, 0]])
    assert found[2] == 0


def test_integer_tokens_score_as_words_do():
    words = split(CANDIDATES), [split(captions) for captions in REFERENCES]
    index = defaultdict(count().__next__)
    integers = [[[index[w] for w in c] for c in words[0]], [[[index[w] for w in c] for c in r] for r in words[1]]]
    expected = CiderD(words[1]).scores(words[0])
    torch.testing.assert_close(CiderD(integers[1]).scores(integers[0]), expected, rtol=0, atol=1e-12)


def test_captions_of_one_image_score_zero_since_no_word_tells_it_from_others():
    assert CiderD([[["a", "b"]]]).scores([["a", "b"]]).tolist() == [0.0]


def test_caption_as_text_is_refused_with_a_cure():
    with pytest.raises(TypeError, match=r"got the text 'a dog'; call zoo.data.tokenize first"):
        CiderD([["a dog"]])
    with pytest.raises(TypeError, match="got the text 'a dog'"):
        CiderD(TWO).scores(["a dog"], images=[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": 0.0}, "sigma must be positive, got 0"),
        ({"sigma": math.nan}, "sigma must be positive, got nan"),
        ({"max_order": 0}, "max_order must be at least 1, got 0"),
        ({"corpus": []}, "references of at least one image are needed"),
        ({"corpus": [[]]}, "image 0 has no reference"),
    ],
)
def test_option_without_meaning_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        CiderD(TWO, **options)


def test_wrong_number_of_images_is_refused():
    with pytest.raises(ValueError, match="1 candidates, but 2 images; pass the index of each candidate's image"):
        CiderD(TWO).scores([[1]])
