import math
from collections.abc import Sequence

from zoo.attention.captioning._ngrams import Tokens, check_candidates, check_max_order, count_ngrams


def corpus_bleu(
    candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]], max_order: int = 4
) -> tuple[float, ...]:
    """Return BLEU-1 to BLEU-``max_order`` of a corpus, from 0 to 1: ``BLEU-N = BP (p_1 p_2 … p_N)^(1/N)``.

    ``p_n`` is the fraction of the candidates' n-grams that are in a reference of the same image, each at most as often
    as in the reference that has it most often. The brevity penalty ``BP = exp(min(0, 1 - r/c))`` compares ``c``, the
    length of all candidates, with ``r``, the sum of the lengths of the references closest in length; of two equally
    close ones the shorter counts, as in the evaluation of COCO captions. Without smoothing: BLEU-N is 0 if no n-gram
    of some order up to N matches. Papineni, Roukos, Ward & Zhu, "BLEU: a method for automatic evaluation of machine
    translation", 2002.

    Args:
        candidates: tokens of one caption per image, words or integers.
        references: tokens of one or more captions per image.
        max_order: length of the longest n-grams.

    Raises:
        TypeError: a caption is text instead of tokens.
        ValueError: candidates and references differ in number, or an image has no reference.

    Example:
        >>> references = [["a dog runs on grass".split(), "the dog is running".split()]]
        >>> corpus_bleu(["a dog runs on the grass".split()], references, max_order=2)
        (1.0, 0.7745966692414834)
    """
    check_max_order(max_order)
    check_candidates(candidates, references)
    matched, total = [0] * max_order, [0] * max_order
    length = closest_length = 0
    for candidate, captions in zip(candidates, references, strict=True):
        length += len(candidate)
        closest_length += _closest_length(len(candidate), captions)
        allowed = count_ngrams((), max_order)
        for caption in captions:
            allowed |= count_ngrams(caption, max_order)  # the larger of two counts
        for ngram, count in count_ngrams(candidate, max_order).items():
            matched[len(ngram) - 1] += min(count, allowed[ngram])
            total[len(ngram) - 1] += count
    if not all(matched[:1]):
        return (0.0,) * max_order
    log_penalty = min(0.0, 1 - closest_length / length)
    log_precisions = [math.log(m / t) if m else -math.inf for m, t in zip(matched, total, strict=True)]
    return tuple(math.exp(log_penalty + sum(log_precisions[:n]) / n) for n in range(1, max_order + 1))


def _closest_length(length: int, references: Sequence[Tokens]) -> int:
    return min((len(caption) for caption in references), key=lambda other: (abs(other - length), other))
