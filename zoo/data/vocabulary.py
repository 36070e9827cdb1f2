import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

EOS, UNK = "<eos>", "<unk>"


def tokenize(text: str) -> tuple[str, ...]:
    """Split a caption into tokens: the longest runs of letters and digits, in lower case.

    Punctuation separates words and is dropped, so that "t-shirt" is two tokens. Karpathy's tokens, which
    ``load_karpathy`` reads as they are, join such words to "tshirt".

    Example:
        >>> tokenize("A dog's red T-shirt, size 2 .")
        ('a', 'dog', 's', 'red', 't', 'shirt', 'size', '2')
    """
    return tuple(re.findall(r"[^\W_]+", text.lower()))


@dataclass(frozen=True)
class Vocabulary:
    """Words and their indices: 0 is the end of a caption, ``<eos>``, and 1 any other word, ``<unk>``.

    Raises:
        ValueError: ``words`` does not start with ``<eos>`` and ``<unk>``, or contains a word twice.

    Example:
        >>> vocabulary = Vocabulary.from_captions([("a", "dog"), ("a", "red", "dog")], min_count=2)
        >>> vocabulary.words
        ('<eos>', '<unk>', 'a', 'dog')
        >>> vocabulary.encode(("a", "red", "dog"))
        [2, 1, 3, 0]
        >>> vocabulary.decode([2, 1, 3, 0, 2])
        ['a', '<unk>', 'dog']
    """

    words: tuple[str, ...]
    """Word of each index."""

    def __post_init__(self) -> None:
        if self.words[:2] != (EOS, UNK):
            raise ValueError(f"a vocabulary starts with {EOS} and {UNK}, got {', '.join(self.words[:2]) or 'no words'}")
        word, count = Counter(self.words).most_common(1)[0]
        if count > 1:
            raise ValueError(f"the word {word!r} is {count} times in the vocabulary; keep one")

    @classmethod
    def from_captions(cls, captions: Iterable[Sequence[str]], min_count: int = 5) -> "Vocabulary":
        """Return the vocabulary of all words that occur at least ``min_count`` times in the captions, sorted.

        Raises:
            ValueError: ``min_count`` is below 1, or no word is that frequent.
        """
        if min_count < 1:
            raise ValueError(f"min_count must be at least 1, got {min_count}")
        counts = Counter(word for caption in captions for word in caption)
        words = sorted(word for word, count in counts.items() if count >= min_count and word not in (EOS, UNK))
        if not words:
            raise ValueError(f"no word of the training captions occurs {min_count} times; reduce min_count")
        return cls((EOS, UNK, *words))

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """Return the indices of a caption's tokens, and that of ``<eos>`` at the end."""
        return [*(self._indices.get(token, 1) for token in tokens), 0]

    def decode(self, indices: Iterable[int]) -> list[str]:
        """Return the words up to ``<eos>``, or to the end.

        Raises:
            IndexError: an index is not in the vocabulary.
        """
        words = []
        for index in indices:
            if not 0 <= index < len(self):
                raise IndexError(f"index {index} is not in the vocabulary of {len(self)} words")
            if index == 0:
                break
            words.append(self.words[index])
        return words

    @cached_property
    def _indices(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.words) if index}
