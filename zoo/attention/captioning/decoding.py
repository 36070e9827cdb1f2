from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from zoo.attention.captioning.network import EOS

State = tuple[Tensor, ...]


class BeamSearchResult(NamedTuple):
    """Best sequence of each image.

    Example:
        >>> BeamSearchResult(words=torch.tensor([[4, 0]]), log_prob=torch.tensor([-0.5])).words
        tensor([[4, 0]])
    """

    words: Int64[Tensor, "images time"]
    """Words up to and including ``<eos>``, which fills up what follows; without it where ``max_length`` ended one."""
    log_prob: Float[Tensor, " images"]
    """Log-probability of the words, in nats."""


def beam_search(
    step: Callable[[Int64[Tensor, "images beams"], State, int], tuple[Float[Tensor, "images beams words"], State]],
    state: State,
    beam_size: int,
    max_length: int,
    length_penalty: float = 0.0,
) -> BeamSearchResult:
    """Return the sequences with the highest score that a beam search finds, for all images at once.

    The ``beam_size`` most likely prefixes of each image are extended by every word; finished sequences stay in the beam
    as they are. The score is ``log p(y) / |y|^length_penalty``. Greedy decoding is ``beam_size=1``.

    Args:
        step: maps the last words, a state and the index of the step to log-probabilities of the next words and the
            next state.
        state: tensors whose first dimensions are images and beams.
        beam_size: number of prefixes kept.
        max_length: maximal number of words, ``<eos>`` included.
        length_penalty: exponent of the length by which log-probabilities are divided; 0 compares them as they are.

    Example:
        >>> table = torch.tensor([[0.1, 0.2, 0.7], [0.9, 0.05, 0.05], [0.6, 0.3, 0.1]]).log()
        >>> start = (torch.zeros(1, 2, 1),)
        >>> beam_search(lambda words, state, t: (table[words], state), start, beam_size=2, max_length=3).words
        tensor([[2, 0]])
    """
    images = len(state[0])
    device = state[0].device
    score = torch.full((images, beam_size), -torch.inf, device=device)
    score[:, 0] = 0.0  # the beams are equal at first
    last = torch.full((images, beam_size), EOS, device=device)
    words = torch.empty(images, beam_size, 0, dtype=torch.long, device=device)
    finished = torch.zeros(images, beam_size, dtype=torch.bool, device=device)
    length = torch.zeros(images, beam_size, device=device)
    for t in range(max_length):
        log_prob, state = step(last, state, t)
        # A finished sequence has one continuation, which changes nothing.
        log_prob = log_prob.masked_fill(finished[..., None], -torch.inf)
        log_prob[..., EOS].masked_fill_(finished, 0.0)
        extended = length + (~finished).to(length.dtype)
        total = score[..., None] + log_prob
        normalized = total / extended[..., None] ** length_penalty
        best = normalized.flatten(1).topk(beam_size, dim=-1).indices
        parent, last = best // log_prob.shape[-1], best % log_prob.shape[-1]
        score = total.flatten(1).gather(1, best)
        state = tuple(_select(x, parent) for x in state)
        words = torch.cat([_select(words, parent), last[..., None]], dim=-1)
        length, finished = _select(extended, parent), _select(finished, parent) | (last == EOS)
        if finished.all():
            break
    best = (score / length**length_penalty).argmax(-1, keepdim=True)
    longest = int(_select(length, best).max())  # other prefixes may be longer
    return BeamSearchResult(_select(words, best).squeeze(1)[:, :longest], _select(score, best).squeeze(1))


def _select(x: Tensor, beams: Int64[Tensor, "images chosen"]) -> Tensor:
    """Return ``x`` of the chosen beams of each image."""
    return x.gather(1, beams.view(*beams.shape, *[1] * (x.ndim - 2)).expand(*beams.shape, *x.shape[2:]))
