import torch
from jaxtyping import Float, Int64
from torch import Tensor

from zoo.attention.captioning._sampling import sample_categorical
from zoo.attention.captioning.decoding import beam_search
from zoo.attention.captioning.network import (
    EOS,
    UNK,
    Annotations,
    Attention,
    AttentionDecoder,
    DecodedCaptions,
    DecoderState,
)


def sample_captions(
    decoder: AttentionDecoder, annotations: Annotations, num_samples: int, max_length: int
) -> tuple[Int64[Tensor, "time images samples"], DecodedCaptions]:
    """Return captions sampled from the model, filled up with ``<eos>``, and the run of the decoder that sampled them.

    The random numbers are those of torch's global generator. Under dropout the captions are samples of the thinned
    decoder whose log-probabilities are returned: those of another run along the captions would be of another decoder,
    and the gradient estimated from them biased.

    Example:
        >>> decoder = AttentionDecoder(num_features=8, grid=(2, 2), vocabulary_size=5)
        >>> words, decoded = sample_captions(decoder, decoder.annotate(torch.rand(2, 4, 8)), 3, max_length=1)
        >>> words.shape, decoded.word_log_prob.shape
        (torch.Size([1, 2, 3]), torch.Size([1, 2, 3]))
    """
    state = decoder.initial_state(annotations, num_samples)
    word = torch.full_like(state.cells, EOS)
    finished = torch.zeros_like(word, dtype=torch.bool)
    words: list[Tensor] = []
    steps: list[tuple[Tensor, ...]] = []
    while len(words) < max_length and not finished.all():
        cell_noise, word_noise = torch.rand(2, *word.shape, device=word.device)
        before = state.hidden
        log_p, at, state = _step(decoder, annotations, word, state, cell_noise)
        word = sample_categorical(log_p.detach().exp(), word_noise).masked_fill(finished, EOS)
        finished = finished | (word == EOS)
        word_log_prob = log_p.gather(-1, word[..., None]).squeeze(-1)
        words.append(word)
        steps.append((word_log_prob, at.log_prob, at.cells, at.probabilities, at.entropy, before))
    return torch.stack(words), DecodedCaptions(*map(torch.stack, zip(*steps, strict=True)))


def search_captions(
    decoder: AttentionDecoder,
    annotations: Annotations,
    beam_size: int,
    max_length: int,
    length_penalty: float = 0.0,
    noise: Float[Tensor, "max_time images 1"] | None = None,
    attention: str | None = None,
) -> tuple[Int64[Tensor, "images time"], DecodedCaptions]:
    """Return the words of the best captions that a beam search finds, and the decoder run along them.

    ``<unk>`` is never written. All prefixes of an image share the noise of its cells, so that the second run attends to
    the cells of the first.

    Args:
        decoder: the decoder.
        annotations: encoded images.
        beam_size: see ``beam_search``.
        max_length: see ``beam_search``.
        length_penalty: see ``beam_search``.
        noise: uniform noise from which cells are sampled; None for the most likely ones.
        attention: see ``AttentionDecoder.attend``.

    Example:
        >>> decoder = AttentionDecoder(num_features=8, grid=(2, 2), vocabulary_size=5).eval()
        >>> annotations = decoder.annotate(torch.rand(2, 4, 8))
        >>> words, decoded = search_captions(decoder, annotations, beam_size=3, max_length=6)
        >>> words.shape == decoded.cells.squeeze(2).T.shape
        True
    """

    def step(words: Tensor, state: tuple[Tensor, ...], t: int) -> tuple[Tensor, DecoderState]:
        noise_t = None if noise is None else noise[t].expand(words.shape)
        log_prob, _, new_state = _step(decoder, annotations, words, DecoderState(*state), noise_t, attention)
        log_prob[..., UNK] = -torch.inf
        return log_prob, new_state

    with torch.no_grad():
        start = decoder.initial_state(annotations, beam_size)
        words, _ = beam_search(step, start, beam_size, max_length, length_penalty)
        noise = None if noise is None else noise[: words.shape[1]]
        return words, decoder.decode(annotations, words.T[..., None], noise, attention=attention)


def until_eos(words: list[int]) -> list[int]:
    """Return the words before the first ``<eos>``."""
    return words[: words.index(EOS)] if EOS in words else words


def _step(
    decoder: AttentionDecoder,
    annotations: Annotations,
    words: Int64[Tensor, "images samples"],
    state: DecoderState,
    noise: Tensor | None,
    attention: str | None = None,
) -> tuple[Float[Tensor, "images samples words"], Attention, DecoderState]:
    """Return the log-probabilities of the next words, the attention, and the next state."""
    embedded = decoder.embed(words)
    at = decoder.attend(annotations, state, noise, attention=attention)
    state = decoder.step(decoder.word_to_gates(embedded), at, state)
    return decoder.logits(embedded, state.hidden, at.context).log_softmax(-1), at, state
