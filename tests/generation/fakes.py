"""A tokenizer of single bytes, and small models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llm.types import Batch


class ByteTokenizer:
    """Ids 0 to 255 are bytes, 256 ends a document. Only `decode` matters here."""

    vocab_size = 257
    eos_id: int | None = 256

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i for i in ids if i < 256).decode("utf-8", errors="replace")

    def save(self, directory: Path) -> None:
        raise NotImplementedError


class Script(nn.Module):
    """A model that surely writes `script`, whatever it reads, starting at the prompt's end."""

    vocab_size = 257

    def __init__(self, script: Sequence[int], n_prompt: int, max_seq_len: int = 100) -> None:
        super().__init__()
        self.max_seq_len = max_seq_len
        self.blocks = nn.ModuleList()
        self.script, self.n_prompt = list(script), n_prompt
        self.calls = 0

    def hidden(self, batch: Batch, cache: Any = None) -> Tensor:
        token = self.script[self.calls]
        self.calls += 1
        one = F.one_hot(torch.tensor(token), self.vocab_size).float() * 100
        return one.expand(*batch.tokens.shape, -1)

    def head(self, hidden: Tensor) -> Tensor:
        return hidden

    def init_weights(self, generator: torch.Generator) -> None: ...

    def parallel_plan(self) -> dict[str, str]:
        return {}
