import pickle

import pytest

from zoo.data import Vocabulary, tokenize

CAPTIONS = [("a", "dog", "runs"), ("a", "dog"), ("a", "cat")]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("A child in a pink dress .", "a child in a pink dress"),
        ('a man \'s dog , and "friends" !', "a man s dog and friends"),
        ("Number 23 is in a T-shirt;jeans", "number 23 is in a t shirt jeans"),
        ("snake_case\tand\nlines", "snake case and lines"),
        ("Ein Café in Köln", "ein café in köln"),
        (" . ", ""),
    ],
)
def test_tokens_are_runs_of_letters_and_digits_in_lower_case(text, tokens):
    assert tokenize(text) == tuple(tokens.split())


def test_words_below_min_count_are_left_out_and_the_others_sorted():
    assert Vocabulary.from_captions(CAPTIONS, min_count=2).words == ("<eos>", "<unk>", "a", "dog")
    assert Vocabulary.from_captions(CAPTIONS, min_count=1).words == ("<eos>", "<unk>", "a", "cat", "dog", "runs")


def test_order_of_captions_does_not_change_the_vocabulary():
    assert Vocabulary.from_captions(CAPTIONS[::-1], 1) == Vocabulary.from_captions(CAPTIONS, 1)


def test_decoding_reverses_encoding():
    vocabulary = Vocabulary.from_captions(CAPTIONS, min_count=1)
    for caption in CAPTIONS:
        assert vocabulary.encode(caption)[-1] == 0
        assert tuple(vocabulary.decode(vocabulary.encode(caption))) == caption


def test_rare_word_is_encoded_as_unknown():
    assert Vocabulary.from_captions(CAPTIONS, min_count=2).encode(("a", "cat", "sat")) == [2, 1, 1, 0]


def test_end_marker_within_a_caption_does_not_end_it():
    vocabulary = Vocabulary.from_captions([("<eos>", "a", "<unk>")] * 5)
    assert vocabulary.words == ("<eos>", "<unk>", "a")
    assert vocabulary.encode(("<eos>", "a", "<unk>")) == [1, 2, 1, 0]


def test_decoding_stops_at_the_first_end_or_after_all_indices():
    vocabulary = Vocabulary.from_captions(CAPTIONS, min_count=1)
    assert vocabulary.decode([2, 0, 3]) == ["a"]
    assert vocabulary.decode([2, 3]) == ["a", "cat"]
    assert vocabulary.decode([]) == []


@pytest.mark.parametrize("index", [-1, 6])
def test_index_outside_the_vocabulary_is_refused(index):
    with pytest.raises(IndexError, match=f"index {index} is not in the vocabulary of 6 words"):
        Vocabulary.from_captions(CAPTIONS, min_count=1).decode([index])


def test_vocabulary_without_the_markers_or_with_a_word_twice_is_refused():
    with pytest.raises(ValueError, match="starts with <eos> and <unk>, got a, b"):
        Vocabulary(("a", "b"))
    with pytest.raises(ValueError, match="starts with <eos> and <unk>, got no words"):
        Vocabulary(())
    with pytest.raises(ValueError, match="the word 'a' is 2 times in the vocabulary"):
        Vocabulary(("<eos>", "<unk>", "a", "b", "a"))


def test_min_count_that_no_word_reaches_is_refused():
    with pytest.raises(ValueError, match="no word of the training captions occurs 4 times; reduce min_count"):
        Vocabulary.from_captions(CAPTIONS, min_count=4)
    with pytest.raises(ValueError, match="min_count must be at least 1, got 0"):
        Vocabulary.from_captions(CAPTIONS, min_count=0)


def test_pickled_vocabulary_is_equal():
    vocabulary = Vocabulary.from_captions(CAPTIONS, min_count=1)
    vocabulary.encode(("a",))
    assert pickle.loads(pickle.dumps(vocabulary)) == vocabulary
