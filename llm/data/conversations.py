"""Conversations for supervised fine-tuning: loss on what the assistant says, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from llm import runtime
from llm.data.rows import RowBuilder, Rows
from llm.inputs import Place, digest, read_jsonl
from llm.runs.progress import Display, Progress
from llm.tokenizers.chat import ROLES
from llm.tokenizers.template import template_for
from llm.types import Batch, ChatTemplate, ConfigError, Conversation, Message, Splits, Tokenizer


class ConversationRows:
    """Conversations as padded rows, one each. Implements `llm.types.Dataset`.

    `n_truncated` and `n_dropped` count the conversations that were too long.
    """

    def __init__(self, rows: Rows, seq_len: int, *, n_truncated: int = 0, n_dropped: int = 0) -> None:
        self._rows, self.seq_len = rows, seq_len
        self.n_truncated, self.n_dropped = n_truncated, n_dropped

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, indices: Sequence[int]) -> Batch:
        """The conversations `indices`; targets are IGNORE except where the assistant speaks."""
        return self._rows.batch(indices, self.seq_len)

    @property
    def bytes_per_target(self) -> float | None:
        """None: targets include the closing markers, which stand for no text."""
        return None


class ConversationData:
    """JSON lines of ``{"messages": [{"role": ..., "content": ...}, ...]}``. A `data` component.

    Args:
        train: file or files to train on.
        validation: file or files to measure on.
        seq_len: the longest training sequence in tokens.
        long: what to do with a conversation that is longer: cut its end off, or drop it. One with nothing of
            the assistant within `seq_len` is dropped in any case. Both are counted and reported.
    """

    def __init__(
        self,
        train: str | list[str],
        validation: str | list[str],
        seq_len: Annotated[int, Field(ge=1)],
        long: Literal["truncate", "drop"] = "truncate",
    ) -> None:
        self.train, self.validation = as_paths(train), as_paths(validation)
        self.seq_len, self.long = seq_len, long

    def load(self, make_tokenizer: Callable[[Iterable[str]], Tokenizer], cache: Path) -> Splits:  # noqa: ARG002
        """Reads and tokenises both splits.

        Raises:
            ConfigError: for a bad row, with file, line and what is missing; for a tokenizer that cannot chat;
                when no conversation fits.
        """
        train = list(read_conversations(self.train, key="train"))
        validation = list(read_conversations(self.validation, key="validation"))
        tokenizer = make_tokenizer(turn.content for conversation in train for turn in conversation)
        chat = template_for(tokenizer)
        return Splits(
            self._rows(train, chat, tokenizer.vocab_size, "train"),
            self._rows(validation, chat, tokenizer.vocab_size, "validation"),
            tokenizer,
        )

    def _rows(
        self, conversations: Sequence[Conversation], chat: ChatTemplate, vocab_size: int, split: str
    ) -> ConversationRows:
        builder = RowBuilder(vocab_size)
        n_truncated = n_dropped = 0
        room = self.seq_len + 1  # ids in a row of seq_len tokens: the last is only a target
        with tokenizing(split, len(conversations)) as progress:
            for conversation in conversations:
                ids, mask = chat.render(conversation)
                if not any(mask[room:]):
                    builder.add(ids, mask)
                elif self.long == "truncate" and any(mask[:room]):
                    builder.add(ids[:room], mask[:room])
                    n_truncated += 1
                else:
                    n_dropped += 1
                progress.advance()
        report_long(split, "conversations", len(conversations), self.seq_len, n_truncated, n_dropped)
        return ConversationRows(builder.rows(), self.seq_len, n_truncated=n_truncated, n_dropped=n_dropped)

    def fingerprint(self) -> str:
        """A digest of the files of both splits."""
        return digest([*self.train, *self.validation], key="train")


def read_conversations(paths: Sequence[str], *, key: str) -> Iterator[Conversation]:
    """The conversations of JSON-lines files, checked: turns alternate, and the assistant says something."""
    for place, row in read_jsonl(paths, key=key):
        conversation = conversation_of(row, "messages", place)
        if all(turn.role != "assistant" for turn in conversation):
            raise place.wrong("no turn of the assistant in `messages`; there is nothing to learn")
        for number, turn in enumerate(conversation):
            if turn.role == "assistant" and not turn.content.strip():
                raise place.wrong(f"`messages[{number}].content` is empty; there is nothing to learn")
            if number and turn.role == conversation[number - 1].role:
                raise place.wrong(f"`messages[{number}].role` is {turn.role} again; turns must alternate")
        yield conversation


def conversation_of(row: dict[str, Any], field: str, place: Place) -> Conversation:
    """The turns in ``row[field]``, or a ConfigError that says what is wrong at `place`."""
    turns = row.get(field)
    if not isinstance(turns, list) or not turns:
        found = "is missing" if field not in row else "is not a list of turns"
        raise place.wrong(f"`{field}` {found}; needed: [{{'role': ..., 'content': ...}}, ...]")
    for number, turn in enumerate(turns):
        if not isinstance(turn, dict) or turn.get("role") not in ROLES:
            found = repr(turn.get("role")) if isinstance(turn, dict) else repr(turn)
            raise place.wrong(f"`{field}[{number}].role` is {found}; one of {', '.join(ROLES)}")
        if not isinstance(turn.get("content"), str):
            raise place.wrong(f"`{field}[{number}].content` is missing, or not text")
    return tuple(Message(turn["role"], turn["content"]) for turn in turns)


def as_paths(value: str | list[str]) -> list[str]:
    """One path or several, as several."""
    return [value] if isinstance(value, str) else list(value)


def tokenizing(split: str, n_rows: int) -> Progress:
    """Shows that a split is being tokenised."""
    return Progress(Display(quiet=not runtime.is_main()), f"tokenize {split}", n_rows, "rows")


def report_long(split: str, what: str, n: int, seq_len: int, n_truncated: int, n_dropped: int) -> None:
    """Tells how many rows were too long.

    Raises:
        ConfigError: when none is left.
    """
    if n_dropped == n:
        raise ConfigError(
            "seq_len", seq_len, f"none of the {n} {what} for {split} fits; give a larger seq_len"
        )
    if n_truncated or n_dropped:
        found = f"{n} {what}, of them too long for seq_len={seq_len}: {n_truncated} cut, {n_dropped} dropped"
        Display(quiet=not runtime.is_main()).say(f"{split}: {found}")
