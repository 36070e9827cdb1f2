from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from zoo.attention.captioning.network import EOS, DecodedCaptions
from zoo.gradients import Reinforce, ReinforceOutput


class CaptioningObjective(NamedTuple):
    """Loss terms of captioning.

    Example:
        >>> CaptioningObjective._fields
        ('nll', 'policy_loss', 'baseline_loss', 'entropy', 'reinforce')
    """

    nll: Float[Tensor, ""]
    """``-log p(y_t | s)`` in nats, averaged over the words: trains all but the attention by backpropagation."""
    policy_loss: Float[Tensor, ""]
    """Surrogate of the cells, in sequence training of cells and words; only its gradient has a meaning."""
    baseline_loss: Float[Tensor, ""]
    """Mean squared error of the baseline: trains the baseline only."""
    entropy: Float[Tensor, ""]
    """Entropy of ``α_t`` in nats, averaged over the words; in sequence training summed over the words of a caption."""
    reinforce: ReinforceOutput | None
    """Output of ``Reinforce``; None where nothing is sampled."""

    def metrics(self) -> dict[str, Tensor]:
        """Return the metrics logged during training; those of the policy are missing where nothing is sampled."""
        metrics = {"train_nll": self.nll.detach(), "attention_entropy": self.entropy}
        if self.reinforce is None:
            return metrics
        advantage = self.reinforce.advantage
        return metrics | {
            "policy_loss": self.policy_loss,
            "baseline_loss": self.baseline_loss,
            "advantage_mean": advantage.mean(),
            "advantage_variance": advantage.var(correction=0),
        }


def word_mask(words: Int64[Tensor, "time images samples"]) -> Bool[Tensor, "time images samples"]:
    """Return whether each word belongs to its caption: those up to and including the first ``<eos>`` do.

    Example:
        >>> word_mask(torch.tensor([5, 3, 0, 0, 7])[:, None, None]).flatten()
        tensor([ True,  True,  True, False, False])
    """
    ended = (words == EOS).cumsum(0)
    return torch.cat([torch.ones_like(words[:1], dtype=torch.bool), ended[:-1] == 0])


def captioning_objective(
    decoded: DecodedCaptions,
    mask: Bool[Tensor, "time images #samples"],
    reinforce: Reinforce | None,
    cell_is_sampled: Bool[Tensor, "time 1 1"] | bool = True,
) -> CaptioningObjective:
    """Return the loss terms of captions given by people.

    ``L_s = E_s[log p(y | s, a)] ≤ log p(y | a)`` is maximized. The weight of ``∇ log p(s_t)`` is what the cell can
    influence, ``Σ_{t' ≥ t} log p(y_t' | s, a)``, less the baseline. Xu et al., "Show, attend and tell: neural image
    caption generation with visual attention", 2015; the paper's weight is the log-probability of the whole caption.

    Args:
        decoded: decoder run along the captions with sampled cells.
        mask: see ``word_mask``.
        reinforce: estimator that maximizes; its signals have the dimensions (time, image, sample), its context is
            ``h_{t-1}``. None where no cell is sampled.
        cell_is_sampled: whether a cell is sampled at each word.

    Example:
        >>> from zoo.attention.captioning.network import AttentionDecoder
        >>> decoder = AttentionDecoder(num_features=8, grid=(2, 2), vocabulary_size=5)
        >>> words = torch.tensor([[2, 3, 0], [4, 0, 0]]).T[..., None]
        >>> run = decoder.decode(decoder.annotate(torch.rand(2, 4, 8)), words, noise=torch.rand(3, 2, 6))
        >>> captioning_objective(run, word_mask(words), Reinforce("none", maximize=True)).reinforce.advantage.shape
        torch.Size([3, 2, 6])
    """
    log_prob = decoded.word_log_prob.where(mask, 0.0)
    mask = mask.expand_as(log_prob)
    num_words = mask.sum()  # of the data: does not depend on the samples
    nll, entropy = -log_prob.sum() / num_words, decoded.entropy.where(mask, 0.0).sum() / num_words
    zero = nll.new_zeros(())
    if reinforce is None:
        return CaptioningObjective(nll, zero, zero, entropy, None)
    reward_to_go = log_prob.detach().flip(0).cumsum(0).flip(0)
    out = reinforce(decoded.cell_log_prob, reward_to_go, context=decoded.hidden, mask=mask & cell_is_sampled)
    return CaptioningObjective(nll, out.loss.sum() / num_words, out.baseline_loss, entropy, out)


def sequence_objective(
    decoded: DecodedCaptions,
    mask: Bool[Tensor, "time images samples"],
    reward: Float[Tensor, "images samples"],
    reinforce: Reinforce,
    cell_is_sampled: Bool[Tensor, "time 1 1"] | bool = True,
) -> CaptioningObjective:
    """Return the loss terms of sampled captions, which are rewarded as a whole: self-critical sequence training.

    ``∇ E[r(y)] = E[(r(y) - b) ∇ (log p(y | s, a) + log p(s | a))]``. Rennie et al., "Self-critical sequence training
    for image captioning", 2017, with the reward of greedy decoding as baseline; Luo, "A better variant of self-critical
    sequence training", 2020, with the mean reward of the other samples, ``LeaveOneOutBaseline``. The loss of a caption
    is the sum over its words, not their mean: dividing by the length, which is sampled, would bias the gradient.

    Args:
        decoded: decoder run along captions that it has sampled, at the cells that it has sampled.
        mask: see ``word_mask``.
        reward: ``r(y)``, or ``r(y)`` less the reward of greedy decoding.
        reinforce: estimator that maximizes; its signals have the dimensions (image, sample).
        cell_is_sampled: whether a cell is sampled at each word; False if at none, so that only words are rewarded.

    Example:
        >>> from zoo.attention.captioning.network import AttentionDecoder
        >>> decoder = AttentionDecoder(num_features=8, grid=(2, 2), vocabulary_size=5)
        >>> words = torch.randint(5, (3, 2, 6))
        >>> run = decoder.decode(decoder.annotate(torch.rand(2, 4, 8)), words, noise=torch.rand(3, 2, 6))
        >>> reward, reinforce = torch.rand(2, 6), Reinforce("none", maximize=True)
        >>> sequence_objective(run, word_mask(words), reward, reinforce).reinforce.advantage.shape
        torch.Size([2, 6])
    """
    cell_log_prob = decoded.cell_log_prob.where(mask & cell_is_sampled, 0.0)
    log_prob = (decoded.word_log_prob.where(mask, 0.0) + cell_log_prob).sum(0)
    out = reinforce(log_prob, reward, context=decoded.hidden[0])
    # Divided by the number of captions, not of words: that of the words depends on the samples.
    entropy = decoded.entropy.where(mask, 0.0).sum(0).mean()
    zero = log_prob.new_zeros(())
    return CaptioningObjective(zero, out.loss.mean(), out.baseline_loss, entropy, out)
