import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from zoo.attention.captioning._sampling import sample_categorical

EOS, UNK = 0, 1  # indices of <eos>, which is also the input before the first word, and of <unk>
ATTENTION = ("hard", "soft", "uniform", "random", "first")


class Annotations(NamedTuple):
    """Encoded cells of images: annotation vectors ``a_i``, and the keys that attention compares with the state.

    Example:
        >>> Annotations(values=torch.zeros(2, 49, 128), keys=torch.zeros(2, 49, 64)).values.shape
        torch.Size([2, 49, 128])
    """

    values: Float[Tensor, "images cells value"]
    keys: Float[Tensor, "images cells query"]


class DecoderState(NamedTuple):
    """State of the decoder between two words, of each sample of each image.

    Example:
        >>> DecoderState._fields
        ('hidden', 'memory', 'cells')
    """

    hidden: Float[Tensor, "images samples hidden"]
    """``h_{t-1}`` of the LSTM."""
    memory: Float[Tensor, "images samples hidden"]
    """``c_{t-1}`` of the LSTM."""
    cells: Int64[Tensor, "images samples"]
    """``s_{t-1}``, the cell of the word before; -1 before the first."""


class Attention(NamedTuple):
    """Where the decoder attends for one word.

    Example:
        >>> Attention._fields
        ('context', 'cells', 'log_prob', 'probabilities', 'entropy')
    """

    context: Float[Tensor, "images samples value"]
    """``z_t``: the annotation of the sampled cell, or the mean of all under soft and uniform attention."""
    cells: Int64[Tensor, "images samples"]
    """``s_t``: the sampled cell; where none is sampled, the most likely one."""
    log_prob: Float[Tensor, "images samples"]
    """``log p(s_t)`` in nats."""
    probabilities: Float[Tensor, "images samples cells"]
    """``α_t``."""
    entropy: Float[Tensor, "images samples"]
    """Entropy of ``α_t`` in nats."""


class DecodedCaptions(NamedTuple):
    """Decoder run along given captions, with the attention at each word.

    Example:
        >>> decoder = AttentionDecoder(num_features=8, grid=(2, 2), vocabulary_size=5)
        >>> words = torch.tensor([[2, 3, 0], [4, 0, 0]]).T[..., None]
        >>> run = decoder.decode(decoder.annotate(torch.rand(2, 4, 8)), words, noise=torch.rand(3, 2, 6))
        >>> run.word_log_prob.shape, run.cells.shape
        (torch.Size([3, 2, 6]), torch.Size([3, 2, 6]))
    """

    word_log_prob: Float[Tensor, "time images samples"]
    """``log p(y_t | s_1, …, s_t, y_1, …, y_{t-1})`` in nats."""
    cell_log_prob: Float[Tensor, "time images samples"]
    """``log p(s_t | s_1, …, s_{t-1}, y_1, …, y_{t-1})`` in nats."""
    cells: Int64[Tensor, "time images samples"]
    probabilities: Float[Tensor, "time images samples cells"]
    entropy: Float[Tensor, "time images samples"]
    hidden: Float[Tensor, "time images samples hidden"]
    """``h_{t-1}``, from which the cell of word ``t`` is sampled: the context of a learned baseline."""


class AttentionDecoder(nn.Module):
    """LSTM that writes a caption word by word, and attends to one cell of the image for each word.

    ``α_t = softmax(f(a, h_{t-1}))``, ``s_t ~ Categorical(α_t)``, ``z_t = a_{s_t}``, ``h_t = LSTM(E y_{t-1}, z_t,
    h_{t-1})``, ``p(y_t) = softmax(Eᵀ tanh(E y_{t-1} + L_h h_t + L_z z_t))``. Xu et al., "Show, attend and tell: neural
    image caption generation with visual attention", 2015. ``docs/captioning.md`` lists the deviations.

    No random numbers are drawn here but those of dropout in training: noise is an argument.

    Args:
        num_features: channels of the feature map.
        grid: rows and columns of the feature map.
        vocabulary_size: number of words.
        embedding_size: dimension of word embeddings; the output layer shares their matrix.
        hidden_size: units of the LSTM.
        value_size: dimension of annotation vectors.
        query_size: dimension in which state and cells are compared.
        attention: ``hard`` samples the cell; ``soft`` averages annotations with weights ``α_t``. Controls: ``uniform``
            averages all of them, ``random`` samples a cell uniformly, ``first`` keeps the cell of the first word.
        init: initial state of the LSTM, ``mean``: computed from the mean annotation, as the paper; ``learned``: a
            parameter, so that all that is known of the image comes through attention.
        dropout: dropout of channels of the feature map, embeddings, states and the output layer.

    Raises:
        ValueError: there is no such ``attention`` or ``init``.

    Example:
        >>> decoder = AttentionDecoder(num_features=8, grid=(2, 2), vocabulary_size=5)
        >>> annotations = decoder.annotate(torch.rand(2, 4, 8))
        >>> state = decoder.initial_state(annotations, num_samples=6)
        >>> decoder.attend(annotations, state, torch.rand(2, 6)).context.shape
        torch.Size([2, 6, 128])
    """

    def __init__(
        self,
        num_features: int,
        grid: tuple[int, int],
        vocabulary_size: int,
        embedding_size: int = 128,
        hidden_size: int = 256,
        value_size: int = 128,
        query_size: int = 64,
        attention: str = "hard",
        init: str = "mean",
        dropout: float = 0.3,
    ):
        super().__init__()
        if attention not in ATTENTION:
            raise ValueError(f"there is no attention {attention!r}; choose one of {', '.join(ATTENTION)}")
        if init not in ("mean", "learned"):
            raise ValueError(f"there is no init {init!r}; choose mean or learned")
        self.attention, self.dropout = attention, dropout
        self.norm = nn.LayerNorm(num_features, elementwise_affine=False)  # linear maps follow
        self.to_value = nn.Linear(num_features, value_size)
        self.to_key = nn.Linear(num_features, query_size)
        coordinates = torch.cartesian_prod(*(torch.linspace(-1, 1, size) for size in grid))
        # An annotation tells from the start where its cell is: relations of objects are hardly learned otherwise.
        self.value_position = nn.Parameter(coordinates @ torch.randn(2, value_size))
        self.key_position = nn.Parameter(torch.zeros(len(coordinates), query_size))
        self.to_query = nn.Linear(hidden_size, query_size)
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        nn.init.normal_(self.embedding.weight, std=embedding_size**-0.5)
        self.word_to_gates = nn.Linear(embedding_size, 4 * hidden_size)
        self.state_to_gates = nn.Linear(value_size + hidden_size, 4 * hidden_size, bias=False)
        with torch.no_grad():
            self.word_to_gates.bias[hidden_size : 2 * hidden_size] = 1.0  # forget gate; Jozefowicz et al. 2015
        self.mean_to_state = nn.Linear(value_size, 2 * hidden_size, bias=False) if init == "mean" else None
        self.initial_bias = nn.Parameter(torch.zeros(2 * hidden_size))
        self.hidden_to_output = nn.Linear(hidden_size, embedding_size)
        self.value_to_output = nn.Linear(value_size, embedding_size, bias=False)
        self.output_bias = nn.Parameter(torch.zeros(vocabulary_size))

    def annotate(self, features: Float[Tensor, "images cells channels"]) -> Annotations:
        """Return annotation vectors and keys of the cells of feature maps.

        Dropout hides a channel in all cells of an image at once: neighboring cells tell much the same.
        """
        x = F.dropout1d(self.norm(features).mT, self.dropout, self.training).mT
        return Annotations(F.relu(self.to_value(x) + self.value_position), self.to_key(x) + self.key_position)

    def initial_state(self, annotations: Annotations, num_samples: int) -> DecoderState:
        """Return the state before the first word."""
        state = self.initial_bias.expand(len(annotations.values), -1)
        if self.mean_to_state is not None:
            state = state + self.mean_to_state(annotations.values.mean(1))
        hidden, memory = state.chunk(2, -1)
        hidden, memory = (x[:, None].expand(-1, num_samples, -1) for x in (hidden.tanh(), memory))
        return DecoderState(hidden, memory, torch.full(hidden.shape[:2], -1, device=hidden.device))

    def attend(
        self,
        annotations: Annotations,
        state: DecoderState,
        noise: Float[Tensor, "images samples"] | None = None,
        cells: Int64[Tensor, "images samples"] | None = None,
        attention: str | None = None,
    ) -> Attention:
        """Return the attention at the next word.

        Args:
            annotations: encoded images.
            state: state before the word.
            noise: uniform on [0, 1), from which the cell is computed by inversion of the distribution function; None
                for the most likely cell.
            cells: cells to attend to, in the place of sampled ones.
            attention: as in the constructor, for another than the trained one.
        """
        attention = attention or self.attention
        query = self.to_query(state.hidden)
        log_p = (query @ annotations.keys.transpose(-1, -2) / math.sqrt(query.shape[-1])).log_softmax(-1)
        p = log_p.exp()
        entropy = -(p * log_p).sum(-1)
        if cells is None:
            if noise is None:
                cells = p.argmax(-1)
            elif attention == "random":
                cells = (noise * p.shape[-1]).long()
            else:
                cells = sample_categorical(p.detach(), noise)
            if attention == "first":
                cells = torch.where(state.cells < 0, cells, state.cells)
        log_prob = log_p.gather(-1, cells[..., None]).squeeze(-1)
        values = annotations.values
        if attention == "soft":
            context = p @ values
        elif attention == "uniform":
            context = values.mean(1, keepdim=True).expand(*cells.shape, -1)
        else:
            context = values.gather(1, cells[..., None].expand(-1, -1, values.shape[-1]))
        return Attention(context, cells, log_prob, p, entropy)

    def embed(self, words: Int64[Tensor, "*dims"]) -> Float[Tensor, "*dims embedding"]:
        """Return the embeddings ``E y`` of words."""
        return self._drop(self.embedding(words))

    def step(
        self, word_gates: Float[Tensor, "images samples gates"], attention: Attention, state: DecoderState
    ) -> DecoderState:
        """Return the state after a word was attended to; ``word_gates`` is computed from ``E y_{t-1}``."""
        gates = word_gates + self.state_to_gates(torch.cat([attention.context, state.hidden], -1))
        i, f, candidate, o = gates.chunk(4, -1)
        memory = f.sigmoid() * state.memory + i.sigmoid() * candidate.tanh()
        return DecoderState(o.sigmoid() * memory.tanh(), memory, attention.cells)

    def logits(
        self,
        embedded: Float[Tensor, "*#dims embedding"],
        hidden: Float[Tensor, "*#dims hidden"],
        context: Float[Tensor, "*#dims value"],
    ) -> Float[Tensor, "*_ words"]:
        """Return the logits of ``p(y_t)``; ``embedded`` is ``E y_{t-1}``."""
        x = embedded + self.hidden_to_output(self._drop(hidden)) + self.value_to_output(context)
        return F.linear(self._drop(x.tanh()), self.embedding.weight, self.output_bias)

    def decode(
        self,
        annotations: Annotations,
        words: Int64[Tensor, "time images #samples"],
        noise: Float[Tensor, "time images samples"] | None = None,
        cells: Int64[Tensor, "time images samples"] | None = None,
        attention: str | None = None,
    ) -> DecodedCaptions:
        """Run along given captions; see ``attend`` for the other arguments.

        Word ``t`` is predicted from the words before it. What follows an ``<eos>`` has no meaning, and is for the
        caller to mask.
        """
        num_samples = next(x.shape[-1] for x in (cells, noise, words) if x is not None)
        inputs = torch.cat([torch.full_like(words[:1], EOS), words[:-1]])
        embedded = self.embed(inputs)
        word_gates = self.word_to_gates(embedded)
        state = self.initial_state(annotations, num_samples)
        before, after, attended = [], [], []
        for t in range(len(words)):
            noise_t, cells_t = (None if x is None else x[t] for x in (noise, cells))
            at = self.attend(annotations, state, noise_t, cells_t, attention)
            before.append(state.hidden)
            state = self.step(word_gates[t], at, state)
            after.append(state.hidden)
            attended.append(at)
        contexts, chosen, log_probs, probabilities, entropies = (torch.stack(x) for x in zip(*attended, strict=True))
        log_p = self.logits(embedded, torch.stack(after), contexts).log_softmax(-1)
        word_log_prob = log_p.gather(-1, words.expand(log_p.shape[:-1])[..., None]).squeeze(-1)
        return DecodedCaptions(word_log_prob, log_probs, chosen, probabilities, entropies, torch.stack(before))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)
