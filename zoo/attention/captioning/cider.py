import math
from collections import Counter
from collections.abc import Hashable, Sequence
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from zoo.attention.captioning._ngrams import Tokens, check_max_order, check_references, check_tokens, count_ngrams

NGram = tuple[Hashable, ...]


class _References(NamedTuple):
    lengths: list[int]
    norms: list[list[float]]
    """By reference and order."""
    occurrences: dict[NGram, tuple[tuple[int, int], ...]]
    """By n-gram, index of each reference that has it, and the count there."""


class CiderD:
    """CIDEr-D, the consensus of a caption with the references of its image.

    With ``g_n`` the vector of the counts of n-grams, each times ``log(images / images that have it in a reference)``,
    a candidate ``c`` of ``l(c)`` tokens scores against references ``s_1 … s_m``

        ``10/m Σ_j exp(-(l(c) - l(s_j))² / 2σ²) · mean_n  min(g_n(c), g_n(s_j)) · g_n(s_j) / (|g_n(c)| |g_n(s_j)|)``.

    As in the evaluation of COCO captions: the factor 10, no stemming, and document frequencies from the references, at
    least 1. Vedantam, Zitnick & Parikh, "CIDEr: consensus-based image description evaluation", 2015. The references
    are prepared once, so that the score can serve as a reward; tokens may be words or integers.

    Args:
        references: tokens of one or more captions per image.
        max_order: length of the longest n-grams.
        sigma: ``σ``, in tokens.
        corpus: captions per image from which the document frequencies are counted; None for ``references``.

    Raises:
        TypeError: a caption is text instead of tokens.
        ValueError: an image has no reference, or ``max_order`` or ``sigma`` is not positive.

    Example:
        >>> cider = CiderD([[[1, 2, 3], [1, 2]], [[4, 5, 3]]])
        >>> cider.scores([[1, 2, 3], [4, 5]])  # one candidate per image; the corpus scores their mean
        tensor([5.8545, 4.2089], dtype=torch.float64)
        >>> cider.scores([[4, 5, 3], [4, 5, 3], [1]], images=[0, 1, 1])  # samples of some images
        tensor([0.0000, 7.5000, 0.0000], dtype=torch.float64)
    """

    def __init__(
        self,
        references: Sequence[Sequence[Tokens]],
        max_order: int = 4,
        sigma: float = 6.0,
        corpus: Sequence[Sequence[Tokens]] | None = None,
    ) -> None:
        check_max_order(max_order)
        if not sigma > 0:
            raise ValueError(f"sigma must be positive, got {sigma}")
        corpus = references if corpus is None else corpus
        check_references(references)
        if corpus is not references:
            check_references(corpus)
        self._max_order = max_order
        self._sigma = sigma
        frequency: Counter[NGram] = Counter()
        for captions in corpus:
            frequency.update(set().union(*(count_ngrams(caption, max_order) for caption in captions)))
        self._log_size = math.log(len(corpus))
        self._idf = {ngram: self._log_size - math.log(count) for ngram, count in frequency.items()}
        shared = {ngram: ngram for ngram in self._idf}  # images share their keys, which saves memory
        self._references = [self._prepare(captions, shared) for captions in references]

    def scores(self, candidates: Sequence[Tokens], images: Sequence[int] | None = None) -> Float64[Tensor, " n"]:
        """Return the score of each candidate against the references of its image; see the class for an example.

        Args:
            candidates: tokens of captions.
            images: index of each candidate's image; None for one candidate per image, in order.

        Raises:
            IndexError: there is no such image.
            TypeError: a caption is text instead of tokens.
            ValueError: candidates and images differ in number.
        """
        images = range(len(self._references)) if images is None else images
        if len(candidates) != len(images):
            raise ValueError(
                f"there are {len(candidates)} candidates, but {len(images)} images; pass the index of each "
                "candidate's image"
            )
        pairs = zip(candidates, images, strict=True)
        return torch.tensor([self._score(tokens, image) for tokens, image in pairs], dtype=torch.float64)

    def _prepare(self, captions: Sequence[Tokens], shared: dict[NGram, NGram]) -> _References:
        """Return length and norms of each reference, and where each n-gram occurs."""
        found: dict[NGram, list[tuple[int, int]]] = {}
        norms = []
        for index, caption in enumerate(captions):
            squares = [0.0] * self._max_order
            for ngram, count in count_ngrams(caption, self._max_order).items():
                found.setdefault(shared.setdefault(ngram, ngram), []).append(_pair(index, count))
                squares[len(ngram) - 1] += (count * self._idf.get(ngram, self._log_size)) ** 2
            norms.append([math.sqrt(square) for square in squares])
        occurrences = {ngram: tuple(pairs) for ngram, pairs in found.items()}
        return _References([len(caption) for caption in captions], norms, occurrences)

    def _score(self, candidate: Tokens, image: int) -> float:
        check_tokens(candidate)
        lengths, norms, occurrences = self._references[image]
        penalties = [math.exp(-(((len(candidate) - length) / self._sigma) ** 2) / 2) for length in lengths]
        factors = [[p / x if x else 0.0 for x in y] for p, y in zip(penalties, norms, strict=True)]
        squares, products = [0.0] * self._max_order, [0.0] * self._max_order
        for ngram, count in count_ngrams(candidate, self._max_order).items():
            order = len(ngram) - 1
            square = self._idf.get(ngram, self._log_size) ** 2
            squares[order] += count * count * square
            for index, other in occurrences.get(ngram, ()):
                products[order] += square * other * (count if count < other else other) * factors[index][order]
        total = sum(x / math.sqrt(square) for x, square in zip(products, squares, strict=True) if square)
        return 10 * total / (self._max_order * len(lengths))


@cache
def _pair(index: int, count: int) -> tuple[int, int]:
    """Return one tuple for all n-grams of equal position and count, which saves memory."""
    return index, count
