"""Preference pairs: two answers to the same prompt, one of them preferred."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from llm.data.conversations import as_paths, conversation_of, report_long, tokenizing
from llm.data.rows import RowBuilder, Rows
from llm.inputs import digest, read_jsonl
from llm.tokenizers.chat import ChatML
from llm.tokenizers.template import JinjaTemplate, template_for
from llm.types import Batch, Preference, Splits, Tokenizer


class PreferencePairs:
    """Pairs as rows 2i (chosen) and 2i + 1 (rejected). Implements `llm.types.Dataset`, counted in pairs.

    `n_truncated` and `n_dropped` count the pairs that were too long.
    """

    def __init__(self, rows: Rows, seq_len: int, *, n_truncated: int = 0, n_dropped: int = 0) -> None:
        assert len(rows) % 2 == 0
        self._rows, self.seq_len = rows, seq_len
        self.n_truncated, self.n_dropped = n_truncated, n_dropped

    def __len__(self) -> int:
        return len(self._rows) // 2

    def batch(self, indices: Sequence[int]) -> Batch:
        """The pairs `indices`: every chosen row, then every rejected one; targets on the answers only."""
        chosen = [2 * index for index in indices]
        return self._rows.batch([*chosen, *(row + 1 for row in chosen)], self.seq_len)

    @property
    def bytes_per_target(self) -> float | None:
        """None: a pair's loss is not one of text."""
        return None


class PreferenceData:
    """JSON lines of ``{"prompt": [turns], "chosen": text, "rejected": text}``. A `data` component.

    Args:
        train: file or files to train on.
        validation: file or files to measure on.
        seq_len: the longest training sequence in tokens. A longer answer loses its end; a pair whose prompt
            leaves no room for a single token of an answer is dropped. Both are counted and reported.
    """

    def __init__(
        self, train: str | list[str], validation: str | list[str], seq_len: Annotated[int, Field(ge=1)]
    ) -> None:
        self.train, self.validation = as_paths(train), as_paths(validation)
        self.seq_len = seq_len

    def load(self, make_tokenizer: Callable[[Iterable[str]], Tokenizer], cache: Path) -> Splits:  # noqa: ARG002
        """Reads and tokenises both splits.

        Raises:
            ConfigError: for a bad row, with file, line and what is missing; for a tokenizer that cannot chat;
                when no pair fits.
        """
        train = list(read_preferences(self.train, key="train"))
        validation = list(read_preferences(self.validation, key="validation"))
        texts = (
            text
            for pair in train
            for text in (*(turn.content for turn in pair.prompt), pair.chosen, pair.rejected)
        )
        tokenizer = make_tokenizer(texts)
        chat = template_for(tokenizer)
        return Splits(
            self._pairs(train, chat, tokenizer.vocab_size, "train"),
            self._pairs(validation, chat, tokenizer.vocab_size, "validation"),
            tokenizer,
        )

    def _pairs(
        self, pairs: Sequence[Preference], chat: ChatML | JinjaTemplate, vocab_size: int, split: str
    ) -> PreferencePairs:
        builder = RowBuilder(vocab_size)
        n_truncated = n_dropped = 0
        room = self.seq_len + 1  # ids in a row of seq_len tokens: the last is only a target
        with tokenizing(split, len(pairs)) as progress:
            for pair in pairs:
                progress.advance()
                # Earlier turns of the assistant belong to the prompt, which both rows share: no loss there.
                prompt, _ = chat.render(pair.prompt, add_generation_prompt=True)
                if len(prompt) >= room:
                    n_dropped += 1
                    continue
                cut = False
                for answer in map(chat.answer, (pair.chosen, pair.rejected)):
                    ids, mask = [*prompt, *answer], [False] * len(prompt) + [True] * len(answer)
                    builder.add(ids[:room], mask[:room])
                    cut = cut or len(ids) > room
                n_truncated += cut
        report_long(split, "pairs", len(pairs), self.seq_len, n_truncated, n_dropped)
        return PreferencePairs(builder.rows(), self.seq_len, n_truncated=n_truncated, n_dropped=n_dropped)

    def fingerprint(self) -> str:
        """A digest of the files of both splits."""
        return digest([*self.train, *self.validation], key="train")


def read_preferences(paths: Sequence[str], *, key: str) -> Iterator[Preference]:
    """The pairs of JSON-lines files, checked: a prompt ends with the user's turn, both answers are text."""
    for place, row in read_jsonl(paths, key=key):
        prompt = conversation_of(row, "prompt", place)
        if prompt[-1].role != "user":
            raise place.wrong(f"`prompt` must end with the user's turn, not the {prompt[-1].role}'s")
        for field in ("chosen", "rejected"):
            if not isinstance(row.get(field), str):
                raise place.wrong(f"`{field}` is missing, or not text")
            if not row[field].strip():
                raise place.wrong(f"`{field}` is empty")
        if row["chosen"] == row["rejected"]:
            raise place.wrong("`chosen` and `rejected` are the same; there is nothing to prefer")
        yield Preference(prompt, row["chosen"], row["rejected"])
