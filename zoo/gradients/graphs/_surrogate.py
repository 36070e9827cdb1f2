from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.gradients.graphs._baselines import Guess, check_guesses, guess
from zoo.gradients.graphs._provenance.names import NO_NAMES, Names
from zoo.gradients.graphs.program import Run
from zoo.gradients.reinforce import surrogate_loss


class Ledger(NamedTuple):
    """One run as arrays."""

    log_prob: Tensor
    """``(variables, *batch)``; 0 where the variable was not drawn or has a pathwise gradient."""
    cost: Tensor
    """``(costs, *batch)``."""
    payers: Tensor
    """``(variables, costs)``: 1 where the variable influences the cost."""


class Signal(NamedTuple):
    """What the scores are multiplied with, over all runs."""

    cost: Tensor
    """Sum of the costs that the variable influences, ``(variables, runs, *batch)``, detached."""
    baseline: Tensor
    """``(variables, runs, *batch)``, detached."""
    baseline_loss: Tensor
    """Of all baselines' own parameters, shifted to the value 0."""


def score_surrogate(runs: Sequence[Run], guesses: Mapping[str, Guess]) -> Tensor:
    """First-order surrogate: ``Σ_c c + Σ_w log p(w) (Q_w - b_w)``, ``Q_w`` the costs that ``w`` influences.

    Corollary 1 and theorem 2 of Schulman, Heess, Weber & Abbeel, "Gradient estimation using stochastic computation
    graphs", 2015. The log-probabilities are shifted to 0, so that its value is the mean cost.
    """
    ledgers, signal = collect(runs, guesses)
    log_prob = torch.stack([ledger.log_prob for ledger in ledgers], dim=1)
    score = surrogate_loss(log_prob - log_prob.detach(), signal.cost - signal.baseline, mask=None)
    return (sum_all(ledger.cost for ledger in ledgers) + score.sum()) / len(runs) + signal.baseline_loss


def dice_surrogate(runs: Sequence[Run], guesses: Mapping[str, Guess]) -> Tensor:
    """Surrogate for derivatives of any order: ``Σ_c ☐(w ≺ c) c + Σ_w (1 - ☐(w)) ☐(v ≺ w) b_w``.

    ``☐(W) = exp(τ - ⊥τ)``, ``τ = Σ_{w ∈ W} log p(w)``: Foerster, Farquhar, Al-Shedivat, Rocktäschel, Xing & Whiteson,
    "DiCE: the infinitely differentiable Monte Carlo estimator", 2018. The baselines' term is that of Mao, Foerster,
    Rocktäschel, Al-Shedivat, Farquhar & Whiteson, "A baseline for any order gradient estimation in stochastic
    computation graphs", 2019.
    """
    ledgers, signal = collect(runs, guesses)
    names = names_in(runs)
    terms = []
    for run, ledger, baseline in zip(runs, map(in_one_precision, ledgers), signal.baseline.unbind(1), strict=True):
        terms.append(magic_box(along(ledger.payers, ledger.log_prob)) * ledger.cost)
        parents = [run.samples[name].parents if name in run.samples else NO_NAMES for name in names]
        before = magic_box(along(influence(run, names, parents, ledger.log_prob), ledger.log_prob))
        terms.append((1 - magic_box(ledger.log_prob)) * before * baseline)
    return sum_all(terms) / len(runs) + signal.baseline_loss


def in_one_precision(ledger: Ledger) -> Ledger:
    """Take the log-probabilities in the costs' precision, in which what flows back from these is added up."""
    return ledger._replace(log_prob=ledger.log_prob.to(torch.promote_types(ledger.log_prob.dtype, ledger.cost.dtype)))


def magic_box(tau: Tensor) -> Tensor:
    """1, whose derivatives are those of the density with the logarithm ``tau``, over it."""
    return (tau - tau.detach()).exp()


def along(influence: Tensor, log_prob: Tensor) -> Tensor:
    """Sum the log-probabilities of all that influences each node: ``(variables, nodes)`` to ``(nodes, *batch)``."""
    return weighted_sums(influence.T.to(log_prob), log_prob)


def weighted_sums(weights: Tensor, x: Tensor) -> Tensor:
    """Add up the first dimension of ``x``, ``(terms, *batch)``, by ``(sums, terms)`` weights: ``(sums, *batch)``.

    As ``torch.tensordot(weights, x, dims=1)``, which takes several times as long for small tensors.
    """
    batch = x.shape[1:]
    return (weights @ x.reshape(len(x), batch.numel())).reshape(len(weights), *batch)


def collect(runs: Sequence[Run], guesses: Mapping[str, Guess]) -> tuple[list[Ledger], Signal]:
    """Arrange the runs as arrays, and find the learning signal of each variable."""
    check_guesses(guesses, runs)
    names = names_in(runs)
    ledgers = [ledger_of(run, names) for run in runs]
    cost = torch.stack([weighted_sums(one.payers, one.cost.detach()) for one in ledgers], dim=1)
    baseline, losses = torch.zeros_like(cost), cost.new_zeros(())
    for name, given in guesses.items():
        if name in names:
            value, loss = guess(name, given, runs, cost[names.index(name)])
            baseline[names.index(name)] = value
            losses = losses + loss
    return ledgers, Signal(cost, baseline, losses - losses.detach() if guesses else losses)


def ledger_of(run: Run, names: Sequence[str]) -> Ledger:
    """Arrange a run as arrays, its variables in the order of the names."""
    like = next(iter(run.samples.values())).log_prob
    scores = {name: sample.log_prob for name, sample in run.samples.items() if not sample.pathwise}
    log_prob = stack_on(like.device, [scores[name] if name in scores else torch.zeros_like(like) for name in names])
    cost = stack_on(like.device, [cost.value for cost in run.costs.values()])
    payers = influence(run, names, [node.parents for node in run.costs.values()], cost)
    return Ledger(log_prob, cost, payers)


def stack_on(device: torch.device, tensors: Sequence[Tensor]) -> Tensor:
    """Stack tensors of any devices on one."""
    return torch.stack([tensor if tensor.device == device else tensor.to(device) for tensor in tensors])


def names_in(runs: Sequence[Run]) -> list[str]:
    """Names of the variables of all runs."""
    return list(dict.fromkeys(name for run in runs for name in run.samples))


def influence(run: Run, names: Sequence[str], parents: Sequence[Names], like: Tensor) -> Tensor:
    """Matrix of 1 where a variable leads to a node, ``(variables, nodes)``, of the type and on the device of ``like``.

    Args:
        run: in which they occur.
        names: of the variables.
        parents: of each node.
        like: a tensor.
    """
    lineages = [run.ancestors(names) for names in parents]
    return like.new_tensor([[float(name in lineage) for lineage in lineages] for name in names])


def sum_all(terms: Iterable[Tensor]) -> Tensor:
    """Add up tensors of any shape to a scalar."""
    sums = [term.sum() for term in terms]
    return sums[0] if len(sums) == 1 else torch.stack(sums).sum()
