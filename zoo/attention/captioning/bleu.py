import math
from collections.abc import Sequence

from zoo.attention.captioning._ngrams import (
    Tokens,
    check_candidates,
    check_max_order,
    closest_length,
    ngram_matches,
)


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
    length = reference_length = 0
    for candidate, captions in zip(candidates, references, strict=True):
        length += len(candidate)
        reference_length += closest_length(len(candidate), captions)
        for order, (hits, count) in enumerate(zip(*ngram_matches(candidate, captions, max_order), strict=True)):
            matched[order] += hits
            total[order] += count
    if not all(matched[:1]):
        return (0.0,) * max_order
    log_penalty = min(0.0, 1 - reference_length / length)
    log_precisions = [math.log(m / t) if m else -math.inf for m, t in zip(matched, total, strict=True)]
    return tuple(math.exp(log_penalty + sum(log_precisions[:n]) / n) for n in range(1, max_order + 1))


def sentence_bleu(candidate: Tokens, references: Sequence[Tokens], max_order: int = 4) -> float:
    """Return the smoothed BLEU of one caption, from 0 to 1, which can serve as a reward.

    As ``corpus_bleu`` of one candidate, but ``p_n = (matches + 1) / (n-grams + 1)`` for n > 1, as single captions
    rarely share a 4-gram with a reference. Lin & Och, "ORANGE: a method for evaluating automatic evaluation metrics for
    machine translation", 2004.

    Args:
        candidate: tokens of a caption, words or integers.
        references: tokens of one or more captions of the same image.
        max_order: length of the longest n-grams.

    Raises:
        TypeError: a caption is text instead of tokens.
        ValueError: there is no reference.

    Example:
        >>> sentence_bleu("a dog runs".split(), ["a dog runs on grass".split(), "the dog is running".split()])
        0.7165313105737893
    """
    check_max_order(max_order)
    check_candidates([candidate], [references])
    matched, total = ngram_matches(candidate, references, max_order)
    if not matched[0]:
        return 0.0
    log_precisions = [math.log(matched[0] / total[0])]
    log_precisions += [math.log((m + 1) / (t + 1)) for m, t in zip(matched[1:], total[1:], strict=True)]
    log_penalty = min(0.0, 1 - closest_length(len(candidate), references) / len(candidate))
    return math.exp(log_penalty + sum(log_precisions) / max_order)
