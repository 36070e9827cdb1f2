import itertools

import pytest
import torch

from zoo.attention.captioning.decoding import beam_search

WORDS, LENGTH = 4, 4


@pytest.fixture
def table():
    """Log-probabilities of the next word, for each image, step and last word."""
    return torch.randn(3, LENGTH, WORDS, WORDS, generator=torch.Generator().manual_seed(0)).log_softmax(-1)


def search(table, beam_size, length_penalty=0.0):
    images = len(table)

    def step(words, state, t):
        return table[torch.arange(images)[:, None], t, words].clone(), state

    return beam_search(step, (torch.zeros(images, beam_size, 1),), beam_size, LENGTH, length_penalty)


def all_sequences():
    """Every sequence that ends with <eos> (0), or is as long as allowed."""
    for length in range(1, LENGTH + 1):
        for words in itertools.product(range(WORDS), repeat=length):
            if 0 not in words[:-1] and (words[-1] == 0 or length == LENGTH):
                yield words


def log_prob(table, words):
    return sum(table[t, before, word].item() for t, (before, word) in enumerate(zip((0, *words), words, strict=False)))


@pytest.mark.parametrize("length_penalty", [0.0, 0.7, 1.0])
def test_wide_beam_finds_the_best_of_all_sequences(table, length_penalty):
    found = search(table, WORDS**LENGTH, length_penalty)
    for image in range(len(table)):
        best = max(all_sequences(), key=lambda words: log_prob(table[image], words) / len(words) ** length_penalty)
        words = found.words[image].tolist()
        assert words == [*best, *[0] * (len(words) - len(best))]
        assert found.log_prob[image].item() == pytest.approx(log_prob(table[image], best), abs=1e-5)


def test_one_beam_decodes_greedily(table):
    found = search(table, 1)
    for image in range(len(table)):
        word, greedy = 0, []
        for t in range(LENGTH):
            word = int(table[image, t, word].argmax())
            greedy.append(word)
            if word == 0:
                break
        assert found.words[image].tolist()[: len(greedy)] == greedy


def test_narrow_beam_can_miss_the_best_sequence_and_a_wider_one_is_no_worse(table):
    scores = torch.stack([search(table, size).log_prob for size in (1, 2, 4, 16, 64, 256)])
    assert (scores[-1] >= scores - 1e-5).all()
    assert (scores[-1] > scores[0] + 1e-3).any()


def test_images_do_not_influence_each_other(table):
    together, alone = search(table, 3), [search(table[i : i + 1], 3) for i in range(len(table))]
    for image, single in enumerate(alone):
        length = single.words.shape[1]
        assert torch.equal(together.words[image, :length], single.words[0])
        assert (together.words[image, length:] == 0).all()


def test_finished_sequences_stay_as_they_are():
    certain = torch.full((1, LENGTH, WORDS, WORDS), -20.0)
    certain[:, 0, 0, 2] = certain[:, 1:, 2, 0] = certain[:, :, 0, 3] = 0.0  # 2, <eos>; nothing follows <eos>
    certain[:, 0, 0, 3] = -20.0
    found = search(certain, 2)
    assert found.words[0].tolist()[:2] == [2, 0]
    assert not found.words[0, 2:].any()
    assert found.log_prob.item() == 0.0


def test_state_follows_its_prefix(table):
    """The state counts the words of its prefix; it must be that of the parent, wherever that stood in the beam."""

    def step(words, state, t):
        (history,) = state
        history = torch.cat([history[..., 1:], words[..., None]], -1)
        return table[torch.arange(len(table))[:, None], t, words].clone(), (history,)

    found = beam_search(step, (torch.full((3, 5, LENGTH), -1),), 5, LENGTH)
    assert torch.equal(found.words, search(table, 5).words)
