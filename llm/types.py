"""The words every room shares: records, batches, and the shapes of what a config can plug in.

This module sits on the ground floor and imports no torch at run time, so that composing a config,
printing help or reporting a user's mistake costs a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    import torch
    from jaxtyping import Bool, Float, Int
    from torch import Tensor, nn

IGNORE = -100
"""Target id that carries no loss (torch's ``ignore_index``)."""


class ConfigError(ValueError):
    """A user's mistake: one line that names the config key, the value and the mend; exit code 2.

    A component raises it with the name of its own parameter; the entry point turns that into the
    full config path (``n_heads`` becomes ``model.n_heads``).
    """

    def __init__(self, key: str, value: object, mend: str) -> None:
        self.key, self.value, self.mend = key, value, mend
        super().__init__(key, value, mend)

    def __str__(self) -> str:
        return f"{self.key}={self.value}: {self.mend}" if self.key else self.mend


@contextmanager
def inside(key: str) -> Iterator[None]:
    """The mistakes of a part, under its place in the config of the whole: `path` becomes ``KEY.path``."""
    try:
        yield
    except ConfigError as mistake:
        raise ConfigError(f"{key}.{mistake.key}", mistake.value, mistake.mend) from mistake


class NotReproduced(Exception):  # noqa: N818  (a verdict, not an error)
    """``reproduce=`` ran to its end and the result differs from the saved run; exit code 3."""


class Message(NamedTuple):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


Conversation = tuple[Message, ...]
"""Turns in order; a prompt is a conversation that ends with the user's turn."""


@dataclass(frozen=True)
class Preference:
    """One human (or derived) ranking: two completions of the same prompt."""

    prompt: Conversation
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Batch:
    """Token ids a model reads and the ids it should predict.

    tokens: ids. targets: the next id at each place, ``IGNORE`` where there is no loss; empty rows of
    ``IGNORE`` for generation. positions: places in the sequence, ``arange(T)`` when None. padding:
    True where a token may be attended to, None when all may (left-padded generation).
    documents: number of the document each token belongs to, where several share a row and must not see each
    other; None where each row is one. source, source_padding: what an encoder reads, and where it is text.
    domains: number of the domain each row is from, where a mixture of several is read.
    A preference batch stacks rows: the first half chosen, the second half rejected, in the same order.
    """

    tokens: Int[Tensor, "B T"]
    targets: Int[Tensor, "B T"] | None = None
    positions: Int[Tensor, "B T"] | None = None
    padding: Bool[Tensor, "B S"] | None = None
    documents: Int[Tensor, "B T"] | None = None
    source: Int[Tensor, "B C"] | None = None
    source_padding: Bool[Tensor, "B C"] | None = None
    domains: Int[Tensor, " B"] | None = None

    @property
    def n_tokens(self) -> int:
        """Places a model reads, an encoder's and padding included."""
        return self.tokens.numel() + (0 if self.source is None else self.source.numel())

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device`, copied without waiting where the device allows."""
        moved = {
            name: value.to(device, non_blocking=True)
            for name, value in vars(self).items()
            if value is not None
        }
        return replace(self, **moved)


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back. `eos_id` ends a document; None when the vocabulary has no such id."""

    vocab_size: int

    @property
    def eos_id(self) -> int | None:
        """The id that ends a document."""
        ...

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, never a special one."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`."""
        ...

    def save(self, directory: Path) -> None:
        """Writes what `llm.tokenizers.base.load` reads."""
        ...


@runtime_checkable
class ChatTemplate(Protocol):
    """Conversation to ids, and which of those ids the assistant wrote (the only ones with loss)."""

    def render(
        self, conversation: Conversation, *, add_generation_prompt: bool = False
    ) -> tuple[list[int], list[bool]]:
        """Ids, and a mask of the same length, True where the assistant wrote."""
        ...

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids at which an answer ends."""
        ...


@runtime_checkable
class Dataset(Protocol):
    """Numbered training sequences; `batch` is a pure function of the indices, so any step can be rebuilt."""

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int]) -> Batch:
        """The sequences of these numbers, in this order."""
        ...

    @property
    def bytes_per_target(self) -> float | None:
        """UTF-8 bytes of text a target token stands for, on average; None where that has no meaning."""
        ...


class Splits(NamedTuple):
    """What a `data` component loads: the two datasets and the tokenizer their ids belong to."""

    train: Dataset
    validation: Dataset
    tokenizer: Tokenizer


@runtime_checkable
class TrainingData(Protocol):
    """A `data` component. `make_tokenizer(texts)` trains one, or returns the one already in use."""

    seq_len: int

    def load(self, make_tokenizer: Callable[[Iterable[str]], Tokenizer], cache: Path) -> Splits:
        """Reads and tokenises both splits; `cache` is a folder of the run's for what that prepares.

        Raises:
            ConfigError: the data are missing or not what they should be.
        """
        ...

    def fingerprint(self) -> str:
        """A digest of the bytes this data comes from."""
        ...


@runtime_checkable
class LanguageModel(Protocol):
    """A model as the rest of the house sees it: hidden states, a head, and where its blocks are.

    It is a `torch.nn.Module`, of whose methods only those are repeated here that other rooms call.
    """

    vocab_size: int
    max_seq_len: int
    blocks: nn.ModuleList
    training: bool

    def hidden(self, batch: Batch, cache: Any = None) -> Float[Tensor, "B T D"]:
        """The stream after the last block; with a `cache`, of the new tokens only."""
        ...

    def head(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        """Scores (logits) of every id to come next."""
        ...

    def __call__(self, batch: Batch, cache: Any = None) -> Float[Tensor, "B T V"]:
        """``head(hidden(batch, cache))``."""
        ...

    def init_weights(self, generator: torch.Generator) -> None:
        """Sets every weight and buffer, drawing from `generator` alone."""
        ...

    def parallel_plan(self) -> Mapping[str, str]:
        """What may be wrapped or split, by module name: ``block``, ``column`` or ``row``."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """torch's."""
        ...

    def train(self, mode: bool = True) -> Self:
        """torch's."""
        ...

    def to(self, device: torch.device) -> Self:
        """torch's."""
        ...


@runtime_checkable
class Algorithm(Protocol):
    """What a training step minimises. `loss` is the mean over `units` (tokens, pairs) of the batch."""

    epochs_per_collect: int

    def setup(self, policy: nn.Module) -> None:
        """Called once with the initial policy (DPO keeps a frozen copy of it)."""
        ...

    def collect(self, policy: nn.Module, batch: Batch) -> Batch:
        """On-policy algorithms generate here; the identity for SFT and DPO."""
        ...

    def units(self, batch: Batch) -> int:
        """What the loss is a mean over, counted: target tokens, pairs."""
        ...

    def loss(self, policy: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean with its graph, and metrics to log, detached."""
        ...


@runtime_checkable
class Callback(Protocol):
    """Called by the trainer after each optimizer step with its state and that step's metrics."""

    def on_step(self, state: Any, metrics: Mapping[str, float]) -> None:
        """`state` is an `llm.training.state.TrainState`."""
        ...


class Request(NamedTuple):
    """What an exam asks of a model: the log-likelihood of `continuation`, or a generation when it is None."""

    prompt: str | Conversation
    continuation: str | None = None
    max_new_tokens: int = 64


class Response(NamedTuple):
    """The model's side of a `Request`: summed log-probability in nats and its token count, or text."""

    log_likelihood: float = 0.0
    n_tokens: int = 0
    text: str = ""


@runtime_checkable
class Exam(Protocol):
    """A test of a model. The same object can reward: `score` needs only an example and its responses."""

    name: str

    def examples(self) -> Iterator[Mapping[str, Any]]:
        """The questions; may be asked for again."""
        ...

    def requests(self, example: Mapping[str, Any]) -> list[Request]:
        """What to ask the model for this example."""
        ...

    def score(self, example: Mapping[str, Any], responses: Sequence[Response]) -> dict[str, float]:
        """What the answers, in the order of the requests, are worth."""
        ...


class TextScore(NamedTuple):
    """What a language model makes of a text: the negative log-probability of the tokens and bytes it read."""

    nats: float
    n_tokens: int
    n_bytes: int


@runtime_checkable
class TextScorer(Protocol):
    """A language model that says how likely texts are; it is pickled without its weights."""

    def prepare(self) -> None:
        """Looks for the model, so that a mistake shows before any work.

        Raises:
            ConfigError: there is none.
        """
        ...

    def score(self, texts: Sequence[str]) -> list[TextScore]:
        """In the order of the texts, each alone; no tokens for a text too short to be judged."""
        ...

    def fingerprint(self) -> str:
        """A digest of all that scores depend on."""
        ...
