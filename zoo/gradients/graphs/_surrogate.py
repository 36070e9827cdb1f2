from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.gradients._tensors import surrogate_loss
from zoo.gradients.graphs._baselines import BaselineLike, check_baselines, evaluate_baseline
from zoo.gradients.graphs._provenance.names import NO_NAMES, Names
from zoo.gradients.graphs._run import Run


class _RunArrays(NamedTuple):
    """One run as arrays; their rows are the samples that occur in any of the runs."""

    log_prob: Tensor
    """``(samples, *batch)``; 0 for a sample that the run lacks, or that has a pathwise gradient."""
    cost: Tensor
    """``(costs, *batch)``."""
    influence_mask: Tensor
    """``(samples, costs)``: 1 where the sample is an ancestor of the cost."""


class _LearningSignal(NamedTuple):
    """Learning signal of each sample in each run, detached."""

    cost: Tensor
    """``(samples, runs, *batch)``: sum of the costs that the sample influences."""
    baseline: Tensor
    """``(samples, runs, *batch)``."""
    baseline_loss: Tensor
    """Sum of the losses of all baselines, minus its detached value: 0, with the gradient of the losses."""


def score_surrogate(runs: Sequence[Run], baselines: Mapping[str, BaselineLike]) -> Tensor:
    """Return the first-order surrogate ``Σ_c c + Σ_w log p(w) (Q_w - b_w)``; ``Q_w``: costs that ``w`` influences.

    Corollary 1 and theorem 2 of Schulman, Heess, Weber & Abbeel, "Gradient estimation using stochastic computation
    graphs", 2015. The detached value of each log-probability is subtracted, so that the surrogate's value is the mean
    cost.
    """
    arrays, signal = _arrays_and_signal(runs, baselines)
    log_prob = torch.stack([run.log_prob for run in arrays], dim=1)
    score = surrogate_loss(log_prob - log_prob.detach(), signal.cost - signal.baseline, mask=None)
    return (sum_all(run.cost for run in arrays) + score.sum()) / len(runs) + signal.baseline_loss


def dice_surrogate(runs: Sequence[Run], baselines: Mapping[str, BaselineLike]) -> Tensor:
    """Return the surrogate for derivatives of any order, ``Σ_c ☐(w ≺ c) c + Σ_w (1 - ☐(w)) ☐(v ≺ w) b_w``.

    ``w ≺ c`` are the samples that influence ``c``. ``☐(W) = exp(τ - ⊥τ)`` with ``τ = Σ_{w ∈ W} log p(w)`` and its
    detached value ``⊥τ``: Foerster, Farquhar, Al-Shedivat, Rocktäschel, Xing & Whiteson, "DiCE: the infinitely
    differentiable Monte Carlo estimator", 2018. The second sum is that of Mao, Foerster, Rocktäschel, Al-Shedivat,
    Farquhar & Whiteson, "A baseline for any order gradient estimation in stochastic computation graphs", 2019.
    """
    arrays, signal = _arrays_and_signal(runs, baselines)
    names = _sample_names(runs)
    terms = []
    for run, (log_prob, cost, influence_mask), baseline in zip(runs, arrays, signal.baseline.unbind(1), strict=True):
        # Autograd accumulates gradients in the precision of the log-probabilities: raise it to that of the costs.
        log_prob = log_prob.to(torch.promote_types(log_prob.dtype, cost.dtype))
        terms.append(_magic_box(_sum_ancestors(influence_mask, log_prob)) * cost)
        parents = [run.samples[name].parents if name in run.samples else NO_NAMES for name in names]
        before = _magic_box(_sum_ancestors(_influence_mask(run, names, parents, log_prob), log_prob))
        terms.append((1 - _magic_box(log_prob)) * before * baseline)
    return sum_all(terms) / len(runs) + signal.baseline_loss


def _magic_box(tau: Tensor) -> Tensor:
    """Return 1, with the derivatives of ``exp(tau)`` relative to its value."""
    return (tau - tau.detach()).exp()


def _sum_ancestors(influence_mask: Tensor, log_prob: Tensor) -> Tensor:
    """Sum the log-probabilities of each node's ancestors, ``(nodes, *batch)``; the mask is ``(samples, nodes)``."""
    return _weighted_sums(influence_mask.T.to(log_prob), log_prob)


def _weighted_sums(weights: Tensor, x: Tensor) -> Tensor:
    """Return ``torch.tensordot(weights, x, dims=1)``; for small tensors, ``tensordot`` takes several times as long."""
    batch = x.shape[1:]
    return (weights @ x.reshape(len(x), batch.numel())).reshape(len(weights), *batch)


def _arrays_and_signal(
    runs: Sequence[Run], baselines: Mapping[str, BaselineLike]
) -> tuple[list[_RunArrays], _LearningSignal]:
    check_baselines(baselines, runs)
    names = _sample_names(runs)
    arrays = [_run_arrays(run, names) for run in runs]
    cost = torch.stack([_weighted_sums(run.influence_mask, run.cost.detach()) for run in arrays], dim=1)
    values, losses = torch.zeros_like(cost), cost.new_zeros(())
    for name, baseline in baselines.items():
        if name in names:
            i = names.index(name)
            values[i], loss = evaluate_baseline(name, baseline, runs, cost[i])
            losses = losses + loss
    return arrays, _LearningSignal(cost, values, losses - losses.detach() if baselines else losses)


def _run_arrays(run: Run, names: Sequence[str]) -> _RunArrays:
    like = next(iter(run.samples.values())).log_prob
    scores = {name: sample.log_prob for name, sample in run.samples.items() if not sample.pathwise}
    log_prob = _stack_on(like.device, [scores[name] if name in scores else torch.zeros_like(like) for name in names])
    cost = _stack_on(like.device, [cost.value for cost in run.costs.values()])
    return _RunArrays(log_prob, cost, _influence_mask(run, names, [node.parents for node in run.costs.values()], cost))


def _stack_on(device: torch.device, tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack([tensor if tensor.device == device else tensor.to(device) for tensor in tensors])


def _sample_names(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in run.samples))


def _influence_mask(run: Run, names: Sequence[str], parents: Sequence[Names], like: Tensor) -> Tensor:
    """Return ``(samples, nodes)``: 1 where a sample is an ancestor of the node with these parents."""
    ancestors = [run.ancestors(node_parents) for node_parents in parents]
    return like.new_tensor([[float(name in node_ancestors) for node_ancestors in ancestors] for name in names])


def sum_all(terms: Iterable[Tensor]) -> Tensor:
    """Sum tensors of any shapes to a scalar."""
    sums = [term.sum() for term in terms]
    return sums[0] if len(sums) == 1 else torch.stack(sums).sum()
