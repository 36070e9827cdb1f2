from collections import Counter
from collections.abc import Hashable, Sequence

Tokens = Sequence[Hashable]


def count_ngrams(tokens: Tokens, max_order: int) -> Counter[tuple[Hashable, ...]]:
    """Count the n-grams of a caption, n = 1 to ``max_order``."""
    counts: Counter[tuple[Hashable, ...]] = Counter()
    for order in range(1, max_order + 1):
        counts.update(zip(*(tokens[start:] for start in range(order)), strict=False))
    return counts


def ngram_matches(candidate: Tokens, references: Sequence[Tokens], max_order: int) -> tuple[list[int], list[int]]:
    """Return by order the number of n-grams of a candidate that match, and of all of them."""
    matched, total = [0] * max_order, [0] * max_order
    allowed = count_ngrams((), max_order)
    for caption in references:
        allowed |= count_ngrams(caption, max_order)  # the larger of two counts
    for ngram, count in count_ngrams(candidate, max_order).items():
        matched[len(ngram) - 1] += min(count, allowed[ngram])
        total[len(ngram) - 1] += count
    return matched, total


def closest_length(length: int, references: Sequence[Tokens]) -> int:
    """Return the length of the reference closest in length to a candidate; of two equally close ones the shorter."""
    return min((len(caption) for caption in references), key=lambda other: (abs(other - length), other))


def check_references(references: Sequence[Sequence[Tokens]]) -> None:
    """Check that there are images, each with references, and that all are sequences of tokens."""
    if not len(references):
        raise ValueError("references of at least one image are needed, got none")
    for image, captions in enumerate(references):
        if not len(captions):
            raise ValueError(f"image {image} has no reference; leave it out, or add its captions")
        for caption in captions:
            check_tokens(caption)


def check_candidates(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> None:
    """Check that there is one candidate per image, and references of each."""
    check_references(references)
    if len(candidates) != len(references):
        raise ValueError(
            f"there are {len(candidates)} candidates, but references of {len(references)} images; use one per image"
        )
    for candidate in candidates:
        check_tokens(candidate)


def check_tokens(caption: Tokens) -> None:
    """Check that a caption is not text, whose tokens would be its letters."""
    if isinstance(caption, str):
        raise TypeError(f"a caption is a sequence of tokens, got the text {caption!r}; call zoo.data.tokenize first")


def check_max_order(max_order: int) -> None:
    """Check the largest length of n-grams."""
    if max_order < 1:
        raise ValueError(f"max_order must be at least 1, got {max_order}")
