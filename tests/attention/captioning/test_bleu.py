import math
from collections import defaultdict
from itertools import count

import pytest

from zoo.attention.captioning import corpus_bleu, sentence_bleu

REFERENCES = [
    ["a dog runs on the grass", "the brown dog is running"],
    ["two men in red shirts play", "two men play a game", "men play"],
    ["a red bird"],
]
CANDIDATES = ["a dog is running on the the grass", "two men play football", "a bird in a tree"]


def split(captions):
    return [caption.split() for caption in captions]


def test_bleu_of_small_corpus_is_that_of_pycocoevalcap():
    # pycocoevalcap 1.2 returns 5.3e-5 as BLEU-4, since it adds 1e-15 to the number of matching n-grams.
    found = corpus_bleu(split(CANDIDATES), [split(captions) for captions in REFERENCES])
    assert found == pytest.approx((0.7058823528996541, 0.594088525747314, 0.40035618893874647, 0.0), abs=1e-9)


def test_word_matches_at_most_as_often_as_in_the_reference_that_has_it_most_often():
    references = split(["the cat is on the mat", "there is a cat on the mat"])  # the example of Papineni et al.
    assert corpus_bleu(split(["the the the the the the the"]), [references], max_order=1) == pytest.approx((2 / 7,))


def test_counts_of_references_are_not_added_up():
    assert corpus_bleu([["a", "a"]], [[["a", "b"], ["a", "c"]]], max_order=1) == pytest.approx((1 / 2,))


@pytest.mark.parametrize(
    ("lengths", "closest"), [((7, 3), 3), ((3, 7), 3), ((6, 4), 4), ((7, 9), 7), ((1, 5), 5)], ids=str
)
def test_brevity_penalty_uses_closest_reference_and_the_shorter_of_two(lengths, closest):
    # The candidate has 4 or 5 of the tokens of the references, so that all of it matches.
    length = 4 if lengths == (1, 5) else 5
    penalty = math.exp(min(0.0, 1 - closest / length))
    (bleu,) = corpus_bleu([["a"] * length], [[["a"] * n for n in (*lengths, 20)]], max_order=1)
    assert bleu == pytest.approx(penalty)


def test_brevity_penalty_is_of_the_whole_corpus():
    # 2 + 6 tokens against 4 + 4: no penalty, though the first is too short.
    assert corpus_bleu([["a"] * 2, ["b"] * 6], [[["a"] * 4], [["b"] * 6, ["b"] * 4]], max_order=1) == pytest.approx(
        (math.exp(1 - 10 / 8),)
    )
    assert corpus_bleu([["a"] * 2, ["b"] * 6], [[["a"] * 4], [["b"] * 4]], max_order=1) == pytest.approx((6 / 8,))


def test_precisions_are_of_the_corpus_and_not_means_over_captions():
    assert corpus_bleu([["a"], ["x", "y", "z"]], [[["a"]], [["u", "v", "w"]]], max_order=1) == pytest.approx((1 / 4,))


def test_integer_tokens_score_as_words_do():
    words = split(CANDIDATES), [split(captions) for captions in REFERENCES]
    index = defaultdict(count().__next__)
    integers = [[[index[w] for w in c] for c in words[0]], [[[index[w] for w in c] for c in r] for r in words[1]]]
    assert corpus_bleu(*integers) == corpus_bleu(*words)


@pytest.mark.parametrize("candidate", [[], ["x"]], ids=["empty", "foreign"])
def test_bleu_without_a_match_is_zero(candidate):
    assert corpus_bleu([candidate], [[["a", "b"]]]) == (0.0,) * 4


def test_caption_as_text_is_refused_with_a_cure():
    with pytest.raises(TypeError, match=r"got the text 'a dog'; call zoo.data.tokenize first"):
        corpus_bleu(["a dog"], [[["a", "dog"]]])
    with pytest.raises(TypeError, match="got the text 'a dog'"):
        corpus_bleu([["a", "dog"]], [["a dog"]])


def test_wrong_numbers_of_captions_are_refused():
    with pytest.raises(ValueError, match="2 candidates, but references of 1 images; use one per image"):
        corpus_bleu([["a"], ["b"]], [[["a"]]])
    with pytest.raises(ValueError, match="image 1 has no reference"):
        corpus_bleu([["a"], ["b"]], [[["a"]], []])
    with pytest.raises(ValueError, match="references of at least one image are needed"):
        corpus_bleu([], [])
    with pytest.raises(ValueError, match="max_order must be at least 1, got 0"):
        corpus_bleu([["a"]], [[["a"]]], max_order=0)


class TestSentenceBleu:
    def test_one_is_added_to_the_counts_of_longer_ngrams(self):
        # "a dog is running on the the grass" against two captions: of 8, 7, 6 and 5 n-grams 7, 5, 1 and 0 match.
        candidate, references = CANDIDATES[0].split(), split(REFERENCES[0])
        expected = (7 / 8 * (5 + 1) / (7 + 1) * (1 + 1) / (6 + 1) * (0 + 1) / (5 + 1)) ** (1 / 4)
        assert sentence_bleu(candidate, references) == pytest.approx(expected)

    def test_equal_caption_has_score_one(self):
        assert sentence_bleu(["a", "red", "bird"], split(["a red bird", "birds"])) == 1

    def test_short_captions_are_penalized(self):
        reference = ["a", "dog", "runs", "on", "the", "grass"]
        assert sentence_bleu(reference[:3], [reference]) == pytest.approx(math.exp(1 - 6 / 3))

    @pytest.mark.parametrize("candidate", [[], ["x"]], ids=["empty", "foreign"])
    def test_caption_without_a_common_word_has_score_zero(self, candidate):
        assert sentence_bleu(candidate, [["a", "b"]]) == 0

    def test_text_and_missing_references_are_refused(self):
        with pytest.raises(TypeError, match="got the text 'a dog'"):
            sentence_bleu("a dog", [["a", "dog"]])
        with pytest.raises(ValueError, match="image 0 has no reference"):
            sentence_bleu(["a"], [])
