import itertools

import pytest
import torch
from torch.distributions import Categorical

from zoo.attention.captioning.network import AttentionDecoder
from zoo.attention.captioning.objective import captioning_objective, word_mask
from zoo.gradients import LeaveOneOutBaseline, Reinforce, expected_cost

CELLS, WORDS, TIME = 3, 4, 2


@pytest.fixture
def decoder(double):
    torch.manual_seed(0)
    sizes = {"embedding_size": 3, "hidden_size": 4, "value_size": 3, "query_size": 2}
    decoder = AttentionDecoder(5, (1, CELLS), WORDS, **sizes, dropout=0.0)
    for parameter in decoder.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter)
    return decoder


@pytest.fixture
def features(decoder):
    return torch.randn(1, CELLS, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


CAPTION = torch.tensor([2, 0])[:, None, None]
PATHS = torch.tensor(list(itertools.product(range(CELLS), repeat=TIME))).T[:, None]  # time, image, path


def gradient(value, decoder):
    """Gradient with respect to all parameters, in a row."""
    found = torch.autograd.grad(value, list(decoder.parameters()), allow_unused=True)
    pairs = zip(found, decoder.parameters(), strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])


def exact_gradient(decoder, features, words):
    """Gradient of ``E_s[log p(y | s)]``, by enumeration of the cells."""
    run = decoder.decode(decoder.annotate(features), words, cells=PATHS)
    mask = word_mask(words)
    log_prob = run.word_log_prob.where(mask, 0.0).sum(0)
    return gradient((run.cell_log_prob.where(mask, 0.0).sum(0).exp() * log_prob).sum(), decoder)


def mean_estimate(decoder, features, words, num_samples, baseline, change=lambda objective: objective):
    """Mean of the estimated gradient over all outcomes of ``num_samples`` independent paths."""
    total = 0
    for chosen in itertools.product(range(PATHS.shape[-1]), repeat=num_samples):
        run = decoder.decode(decoder.annotate(features), words, cells=PATHS[..., list(chosen)])
        objective = captioning_objective(run, word_mask(words), Reinforce(baseline, maximize=True))
        probability = run.cell_log_prob.sum().exp().detach()
        num_words = word_mask(words).sum()
        total = total - probability * num_words * gradient(objective.nll + change(objective.policy_loss), decoder)
    return total


@pytest.mark.parametrize("baseline", [None, 0.7], ids=["no baseline", "constant"])
@pytest.mark.parametrize("words", [CAPTION, torch.tensor([3, 2])[:, None, None]], ids=["with eos", "cut off"])
def test_gradient_of_cross_entropy_objective_equals_the_enumerated_one(decoder, features, words, baseline):
    found = mean_estimate(decoder, features, words, 1, baseline)
    torch.testing.assert_close(found, exact_gradient(decoder, features, words))


def test_gradient_with_leave_one_out_baseline_equals_the_enumerated_one(decoder, features):
    found = mean_estimate(decoder, features, CAPTION, 2, LeaveOneOutBaseline(-1))
    torch.testing.assert_close(found, exact_gradient(decoder, features, CAPTION))


def test_gradient_without_the_policy_loss_differs_from_the_enumerated_one(decoder, features):
    wrong = mean_estimate(decoder, features, CAPTION, 1, None, change=lambda loss: 0 * loss)
    assert (wrong - exact_gradient(decoder, features, CAPTION)).abs().max() > 1e-3


def test_cells_after_the_end_of_a_caption_get_exactly_no_gradient(decoder, features):
    words = torch.tensor([0, 3])[:, None, None]
    run = decoder.decode(decoder.annotate(features), words, noise=torch.rand(TIME, 1, 5))
    objective = captioning_objective(run, word_mask(words), Reinforce(LeaveOneOutBaseline(-1), maximize=True))
    grads = torch.autograd.grad(objective.nll + objective.policy_loss, [run.word_log_prob, run.cell_log_prob])
    assert all((g[0] != 0).any() for g in grads[:1])
    assert all((g[1] == 0).all() for g in grads)


def test_expected_cost_of_the_decoder_as_a_program_equals_the_enumerated_objective(decoder, features):
    annotations = decoder.annotate(features)
    words = CAPTION.flatten().tolist()

    def program(graph):
        state = decoder.initial_state(annotations, 1)
        for t, word in enumerate(words):
            before = decoder.embedding(torch.tensor([[words[t - 1] if t else 0]]))
            probabilities = decoder.attend(annotations, state).probabilities[0, 0]
            cell = graph.sample(f"cell {t}", Categorical(probabilities))
            at = decoder.attend(annotations, state, cells=cell.long().view(1, 1))
            state = decoder.step(decoder.word_to_gates(before), at, state)
            logits = decoder.logits(before, state.hidden, at.context)
            graph.cost(f"word {t}", -logits.log_softmax(-1)[0, 0, word])

    found = -gradient(expected_cost(program), decoder)
    torch.testing.assert_close(found, exact_gradient(decoder, features, CAPTION))
