"""Text with gaps to fill: the task T5 is pretrained on.

Raffel et al. 2020, "Exploring the Limits of Transfer Learning", section 3.1.4; lengths and the places of
gaps as in the released code (``random_spans_helper``, ``random_spans_noise_mask``)::

    text      Thank you for inviting me to your party last week .
    source    Thank you <0> me to your party <1> week . end
    target    <0> for inviting <1> last end

Each gap becomes one sentinel id; the target is what stood in the gaps, each behind its sentinel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from llm.data.mapped import Tokens
from llm.data.packed import PackedTokens
from llm.tokenizers.sentinels import sentinels_of, with_sentinels
from llm.types import Batch, ConfigError, Splits, Tokenizer, TrainingData

Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]


class Lengths(NamedTuple):
    """How many tokens of text make a sequence, and what becomes of them."""

    text: int
    noise: int
    gaps: int
    source: int
    target: int


def lengths_of(
    seq_len: int, noise_density: float, mean_gap_tokens: float, *, ends_source: bool = True
) -> Lengths:
    """The longest text whose source has at most `seq_len` tokens, and that source's and target's lengths.

    Args:
        seq_len: the encoder's.
        noise_density: share of the text that is taken out.
        mean_gap_tokens: of what is taken out in one place.
        ends_source: whether an end follows the source; one always follows the target.

    Raises:
        ConfigError: not even two tokens fit, or the target is longer than `seq_len`.
    """

    def of(text: int) -> Lengths:
        noise = min(max(round(text * noise_density), 1), text - 1)
        gaps = min(max(round(noise / mean_gap_tokens), 1), text - noise, noise)
        return Lengths(text, noise, gaps, text - noise + gaps + ends_source, noise + gaps + 1)

    found = of(2)
    if found.source > seq_len:
        raise ConfigError(
            "seq_len", seq_len, f"leaves no room for a text with a gap; at least {found.source}"
        )
    while (longer := of(found.text + 1)).source <= seq_len:
        found = longer
    if found.target > seq_len:
        mend = f"makes targets of {found.target} tokens, longer than the sources; take less out"
        raise ConfigError("noise_density", noise_density, mend)
    return found


class SpanCorruption:
    """Windows of a corpus, each with its own gaps. Implements `llm.types.Dataset`.

    Where the gaps are follows from `seed`, the shift and the sequence's number alone. `shifted` windows have
    other gaps, so that every epoch has.

    Args:
        tokens: the corpus.
        lengths: of a sequence.
        sentinels: ids for the gaps, in order; one more than gaps when `end_id` is None.
        end_id: ends source and target; None where the tokenizer has none: the target then ends with the next
            sentinel, as in the paper's figure 2.
        start_id: what the decoder reads first.
        seed: of the gaps.
        offset: how far the windows are shifted.
    """

    def __init__(
        self,
        tokens: Tokens,
        lengths: Lengths,
        *,
        sentinels: Sequence[int],
        end_id: int | None,
        start_id: int,
        seed: int,
        offset: int = 0,
    ) -> None:
        assert len(tokens) >= lengths.text, "refused where the data are loaded"
        assert len(sentinels) >= lengths.gaps + (end_id is None)
        self.tokens, self.lengths, self.sentinels = tokens, lengths, list(sentinels)
        self.end_id, self.start_id, self.seed, self.offset = end_id, start_id, seed, offset

    def __len__(self) -> int:
        return len(self.tokens) // self.lengths.text

    def batch(self, indices: Sequence[int]) -> Batch:
        """The windows `indices` as sources and targets, all of one length."""
        rows = [self._row(int(index)) for index in indices]
        source = torch.from_numpy(np.stack([row[0] for row in rows]))
        targets = torch.from_numpy(np.stack([row[1] for row in rows]))
        start = torch.full((len(rows), 1), self.start_id)
        return Batch(tokens=torch.cat((start, targets[:, :-1]), 1), targets=targets, source=source)

    def _row(self, index: int) -> tuple[Integers, Integers]:
        """Source and target of one window."""
        assert 0 <= index < len(self), f"window {index} of {len(self)}"
        places = np.arange(self.lengths.text) + index * self.lengths.text + self.offset % self.lengths.text
        text = self.tokens[places % len(self.tokens)].astype(np.int64)
        noise = gaps(self.lengths, np.random.PCG64(_words(self.seed, self.offset, index)))
        marks = np.array(self.sentinels)
        source = _replaced(text, noise, marks)
        target = _replaced(text, ~noise, marks)  # what is kept becomes the sentinel before the gap behind it
        if self.end_id is None:
            return source, np.append(target, self.sentinels[self.lengths.gaps])
        return np.append(source, self.end_id), np.append(target, self.end_id)

    def shifted(self, offset: int) -> SpanCorruption:
        """The same corpus cut elsewhere, with other gaps."""
        return SpanCorruption(
            self.tokens,
            self.lengths,
            sentinels=self.sentinels,
            end_id=self.end_id,
            start_id=self.start_id,
            seed=self.seed,
            offset=offset,
        )

    @property
    def bytes_per_target(self) -> float | None:
        """None: among the targets are sentinels, which stand for no text."""
        return None


def gaps(lengths: Lengths, bits: np.random.PCG64) -> Bools:
    """True where a token is taken out: text, gap, text, gap and so on, each at least one token long."""
    kept = _parts(lengths.text - lengths.noise, lengths.gaps, bits)
    taken = _parts(lengths.noise, lengths.gaps, bits)
    runs = np.stack((kept, taken), 1).ravel()
    return np.repeat(np.tile([False, True], lengths.gaps), runs)


def _parts(n_items: int, n_parts: int, bits: np.random.PCG64) -> Integers:
    """Sizes of `n_parts` parts of `n_items`, none empty, every way of cutting as likely."""
    # Raw bits, sorted: numpy promises these to be the same in every version, and nothing above them.
    order = np.argsort(bits.random_raw(n_items - 1), kind="stable") if n_items > 1 else np.empty(0, np.int64)
    cuts = np.sort(order[: n_parts - 1]) + 1
    return np.diff(np.concatenate(([0], cuts, [n_items])))


def _replaced(text: Integers, where: Bools, marks: Integers) -> Integers:
    """`text` with each run of True `where` as one mark, in order."""
    first = where & ~np.concatenate(([False], where[:-1]))
    return np.where(first, marks[np.maximum(first.cumsum() - 1, 0)], text)[~where | first]


def _words(seed: int, offset: int, index: int) -> list[int]:
    # Two words each: a fixed count of words keeps different numbers apart.
    return [word for number in (seed, offset, index) for word in (number % 2**32, number // 2**32 % 2**32)]


class SpanCorruptionData:
    """Any corpus as texts with gaps. A `data` component.

    Args:
        corpus: where the text comes from: a `data` component of packed tokens, as `llm.data.text.TextData`.
        seq_len: the longest source in tokens; targets are shorter.
        noise_density: share of the tokens that are taken out.
        mean_gap_tokens: of what is taken out in one place.
        n_sentinels: ids added to the tokenizer when it has none of its own; as many gaps as a sequence has
            are needed at least.
        start_id: what the decoder reads first, the model's `start_id`.
        seed: of the gaps.
    """

    def __init__(
        self,
        corpus: TrainingData,
        seq_len: Annotated[int, Field(ge=1)],
        noise_density: Annotated[float, Field(gt=0, lt=1)] = 0.15,
        mean_gap_tokens: Annotated[float, Field(ge=1)] = 3.0,
        n_sentinels: Annotated[int, Field(ge=1)] = 100,
        start_id: Annotated[int, Field(ge=0)] = 0,
        seed: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        self.check_arguments(
            seq_len=seq_len,
            noise_density=noise_density,
            mean_gap_tokens=mean_gap_tokens,
            n_sentinels=n_sentinels,
        )
        self.corpus, self.seq_len, self.n_sentinels = corpus, seq_len, n_sentinels
        self.noise_density, self.mean_gap_tokens = noise_density, mean_gap_tokens
        self.start_id, self.seed = start_id, seed

    @staticmethod
    def check_arguments(
        *, seq_len: int, noise_density: float = 0.15, mean_gap_tokens: float = 3.0, n_sentinels: int = 100
    ) -> None:
        """Refuses sequences with no room for a gap, and more gaps than sentinels."""
        lengths = lengths_of(seq_len, noise_density, mean_gap_tokens)
        if lengths.gaps > n_sentinels:
            mend = f"sequences of {seq_len} tokens have {lengths.gaps} gaps; give at least as many"
            raise ConfigError("n_sentinels", n_sentinels, mend)

    def load(self, make_tokenizer: Callable[[Iterable[str]], Tokenizer], cache: Path) -> Splits:
        """Loads the corpus and cuts both splits into sequences.

        Raises:
            ConfigError: as the corpus does; the corpus does not come as packed tokens, or is too short.
        """
        try:
            train, validation, inner = self.corpus.load(make_tokenizer, cache)
        except ConfigError as error:
            raise _of_corpus(error) from error
        tokenizer = with_sentinels(inner, self.n_sentinels)
        sentinels, end_id = sentinels_of(tokenizer), tokenizer.eos_id
        lengths = lengths_of(
            self.seq_len, self.noise_density, self.mean_gap_tokens, ends_source=end_id is not None
        )
        needed = lengths.gaps + (end_id is None)
        if needed > len(sentinels):
            mend = f"{needed} are needed: one for each gap, and an end, which this tokenizer has no id for"
            raise ConfigError("n_sentinels", self.n_sentinels, mend)

        def corrupted(split: object, name: str) -> SpanCorruption:
            if not isinstance(split, PackedTokens):
                mend = "does not come as one run of tokens; take text, tinyshakespeare or packed"
                raise ConfigError("corpus", type(self.corpus).__name__, mend)
            if len(split.tokens) < lengths.text:
                mend = f"a sequence takes {lengths.text} tokens of text; {name} has {len(split.tokens):,}"
                raise ConfigError("seq_len", self.seq_len, mend)
            return SpanCorruption(
                split.tokens,
                lengths,
                sentinels=sentinels,
                end_id=end_id,
                start_id=self.start_id,
                seed=self.seed,
            )

        return Splits(corrupted(train, "training"), corrupted(validation, "validation"), tokenizer)

    def fingerprint(self) -> str:
        """The corpus's."""
        try:
            return self.corpus.fingerprint()
        except ConfigError as error:
            raise _of_corpus(error) from error


def _of_corpus(error: ConfigError) -> ConfigError:
    """The corpus names its own parameter; tell which component it is of."""
    own = error.key in ("path", "url", "sha256", "validation_fraction", "seq_len")
    return ConfigError(f"corpus.{error.key}" if own else error.key, error.value, error.mend)
