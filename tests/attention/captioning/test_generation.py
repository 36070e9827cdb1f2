import itertools

import pytest
import torch

from zoo.attention.captioning._generation import sample_captions, search_captions, until_eos
from zoo.attention.captioning.network import EOS, UNK, AttentionDecoder
from zoo.attention.captioning.objective import word_mask

CELLS, WORDS, LENGTH = 3, 4, 3


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    decoder = AttentionDecoder(5, (1, CELLS), WORDS, 4, 6, 5, 3, dropout=0.0)
    for parameter in decoder.parameters():
        parameter.data += 0.6 * torch.randn_like(parameter)
    return decoder.eval()


@pytest.fixture
def annotations(decoder):
    with torch.no_grad():
        return decoder.annotate(torch.randn(2, CELLS, 5, generator=torch.Generator().manual_seed(1)))


def log_prob(decoder, annotations, words, cells):
    """Log-probability of captions and cells, of shape (images, samples)."""
    run = decoder.decode(annotations, words, cells=cells)
    mask = word_mask(words)
    return (run.word_log_prob + run.cell_log_prob).where(mask, 0.0).sum(0)


def outcomes():
    """Every caption that ends with <eos> or is cut off, with every choice of cells."""
    for words in itertools.product(range(WORDS), repeat=LENGTH):
        ended = words.index(EOS) + 1 if EOS in words else LENGTH
        if not any(words[ended:]):
            for cells in itertools.product(range(CELLS), repeat=ended):
                yield words, (*cells, *[0] * (LENGTH - ended))


def test_probabilities_of_all_captions_and_cells_sum_to_one(decoder, annotations):
    words, cells = (torch.tensor(x).T[:, None].expand(-1, 2, -1) for x in zip(*outcomes(), strict=True))
    with torch.no_grad():
        total = log_prob(decoder, annotations, words, cells).exp().sum(-1)
    torch.testing.assert_close(total, torch.ones(2))


def test_sampled_captions_have_the_frequencies_of_the_model(decoder, annotations):
    """False alarms: below 1e-6, Hoeffding's bound for the log-probability of 20,000 samples, which are above -25."""
    torch.manual_seed(0)
    with torch.no_grad():
        words, decoded = sample_captions(decoder, annotations, 20_000, LENGTH)
        found = log_prob(decoder, annotations, words, decoded.cells).mean(-1)
        every = [torch.tensor(x).T[:, None].expand(-1, 2, -1) for x in zip(*outcomes(), strict=True)]
        exact = log_prob(decoder, annotations, *every)
    expected = (exact.exp() * exact).sum(-1)
    assert exact.min() > -25
    assert (found - expected).abs().max() < 0.2


def test_sampled_captions_come_with_the_run_along_them(decoder, annotations):
    words, decoded = sample_captions(decoder, annotations, 50, LENGTH)
    again = decoder.decode(annotations, words, cells=decoded.cells)
    for name, found, expected in zip(decoded._fields, decoded, again, strict=True):
        torch.testing.assert_close(found, expected, msg=name)


def test_log_probabilities_under_dropout_are_those_of_the_decoder_that_sampled(annotations):
    torch.manual_seed(0)
    decoder = AttentionDecoder(5, (1, CELLS), WORDS, 4, 6, 5, 3, dropout=0.5)
    decoder.embedding.weight.data *= 40  # a thinned decoder is nearly certain of its next word, and others of another
    words, decoded = sample_captions(decoder, annotations, 200, 1)
    other = decoder.decode(annotations, words, cells=decoded.cells)
    assert decoded.word_log_prob.mean() > -0.5
    assert other.word_log_prob.mean() < -2


def test_captions_are_filled_up_with_eos(decoder, annotations):
    words, _ = sample_captions(decoder, annotations, 200, LENGTH)
    assert not words.where(~word_mask(words), 0).any()
    assert (words[-1] == EOS).any()
    assert (words[-1] != EOS).any()


def test_wide_beam_finds_the_most_likely_caption_without_unk(decoder, annotations):
    found, _ = search_captions(decoder, annotations, WORDS**LENGTH, LENGTH)
    captions = sorted({words for words, _ in outcomes() if UNK not in words})
    every = torch.tensor(captions).T[:, None].expand(-1, 2, -1)
    with torch.no_grad():
        run = torch.stack(
            [decoder.decode(annotations, every[..., i : i + 1]).word_log_prob for i in range(every.shape[-1])]
        )
    scores = run.squeeze(-1).where(word_mask(every).permute(2, 0, 1), 0.0).sum(1)
    for image in range(2):
        best = list(captions[int(scores[:, image].argmax())])
        assert found[image].tolist() == best[: found.shape[1]]


def test_second_run_attends_to_the_cells_of_the_search(decoder, annotations):
    noise = torch.rand(LENGTH, 2, 1, generator=torch.Generator().manual_seed(5))
    words, decoded = search_captions(decoder, annotations, 1, LENGTH, noise=noise)
    again = decoder.decode(annotations, words.T[..., None], noise[: words.shape[1]])
    assert torch.equal(decoded.cells, again.cells)
    assert UNK not in words


def test_until_eos_drops_the_end():
    assert until_eos([3, 2, 0, 0]) == [3, 2]
    assert until_eos([3, 2]) == [3, 2]
    assert until_eos([0, 2]) == []
