"""A tiny model of somebody else's making, so that scores are held against independent code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from llm.tokenizers.byte import train as byte_tokenizer
from llm.types import Batch, Tokenizer
from tests.models.composition import small


class Wrapped(nn.Module):
    """A `transformers` LLaMA behind `llm.types.LanguageModel`."""

    def __init__(self, vocab_size: int, max_seq_len: int) -> None:
        super().__init__()
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=max_seq_len,
            attn_implementation="eager",
            initializer_range=0.2,  # sharp enough that a wrong token shows
        )
        self.llama = LlamaForCausalLM(config)
        self.vocab_size, self.max_seq_len = vocab_size, max_seq_len
        self.blocks = self.llama.model.layers

    def hidden(self, batch: Batch, cache: Any = None) -> Tensor:
        return self.llama.model(input_ids=batch.tokens, use_cache=False).last_hidden_state

    def head(self, hidden: Tensor) -> Tensor:
        return self.llama.lm_head(hidden)

    def forward(self, batch: Batch, cache: Any = None) -> Tensor:
        return self.head(self.hidden(batch))

    def init_weights(self, generator: torch.Generator) -> None: ...

    def parallel_plan(self) -> dict[str, str]:
        return {}


def compose_decoder(vocab_size: int, max_seq_len: int = 64) -> nn.Module:
    """The project's own decoder, small, with weights large enough to prefer one token to another."""
    sizes = {"vocab_size": vocab_size, "max_seq_len": max_seq_len, "d_model": 32, "n_heads": 4}
    return small(**sizes, init_std=0.3).eval()


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return byte_tokenizer([])


@pytest.fixture(scope="session")
def model(tokenizer: Tokenizer) -> Wrapped:
    return Wrapped(tokenizer.vocab_size, 64)


def reference_log_probs(model: Wrapped, ids: list[int]) -> list[float]:
    """log p(ids[i] | ids[:i]) for i >= 1, one text alone, in float64."""
    with torch.no_grad():
        logits = model.llama(torch.tensor([ids[:-1]])).logits[0].double()
    return [float(torch.log_softmax(row, -1)[token]) for row, token in zip(logits, ids[1:], strict=True)]


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Writes rows as JSON lines and returns the file."""
    import json

    def write(name: str, rows: list[dict[str, Any]]) -> str:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write
