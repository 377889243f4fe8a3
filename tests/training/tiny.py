"""A model, data and a tokenizer small enough that a whole training run takes a moment."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llm.checkpoints.recipe import recipe_of
from llm.config import build
from llm.optimizers.adamw import adamw
from llm.optimizers.schedules import cosine
from llm.types import IGNORE, Batch, Splits
from tests.models.composition import load_model

VOCAB, SEQ_LEN = 37, 16
MODEL: dict[str, Any] = recipe_of(load_model("decoder", d_model=32, n_layers=2, n_heads=4, bias=True))


def model(seed: int = 0, **changes: Any) -> nn.Module:
    made: nn.Module = build({**MODEL, **changes})(vocab_size=VOCAB, max_seq_len=SEQ_LEN)
    made.init_weights(torch.Generator().manual_seed(seed))
    return made


class Letters:
    """A tokenizer whose ids are characters."""

    vocab_size, eos_id = VOCAB, None

    def encode(self, text: str) -> list[int]:
        return [ord(c) % VOCAB for c in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(97 + i % 26) for i in ids)

    def save(self, directory: Path) -> None:
        directory.mkdir()
        (directory / "letters.json").write_text(json.dumps(VOCAB))


class Counting:
    """Rows that count upwards with noise, so that there is something to learn. `mask` hides targets."""

    bytes_per_target: float | None = 1.0

    def __init__(self, n: int, seed: int = 0, mask: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        start = torch.randint(VOCAB, (n, 1), generator=generator)
        noise = torch.rand(n, SEQ_LEN + 1, generator=generator) < 0.1
        self.rows = (start + torch.arange(SEQ_LEN + 1) + noise) % VOCAB
        # rows are hidden very unequally, the last ones nearly wholly
        share = torch.linspace(0, 1, n)[:, None] ** 0.5 * mask
        self.hidden = torch.rand(n, SEQ_LEN, generator=generator) < share

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Sequence[int]) -> Batch:
        rows = self.rows[list(indices)]
        targets = rows[:, 1:].clone()
        targets[self.hidden[list(indices)]] = IGNORE
        return Batch(rows[:, :-1].clone(), targets)


def splits(mask: float = 0.0) -> Splits:
    return Splits(Counting(48, seed=1, mask=mask), Counting(21, seed=2, mask=mask), Letters())


optimizer: Callable[..., torch.optim.Optimizer] = partial(adamw, lr=3e-3, weight_decay=0.1)
schedule: Callable[[int, int], float] = partial(cosine, warmup_steps=5)
