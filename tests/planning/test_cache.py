"""The cache of a token against the papers' formulas."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from llm.parallelism.precision import Precision
from llm.planning.cache import cache_size
from llm.planning.plan import on_meta
from tests.models.composition import load_model

SIZES: dict[str, Any] = {"d_model": 64, "n_layers": 4, "n_heads": 4}


def windowed(preset: str, **changes: Any) -> Any:
    return partial(load_model(preset).keywords["attention"], **changes)


@pytest.mark.parametrize(
    ("preset", "changes", "dtype", "per_token", "needed_tokens"),
    [
        ("gpt2", {}, "float32", 4 * 2 * 64 * 4, 64),
        ("llama", {"n_kv_heads": 2}, "float32", 4 * 2 * 32 * 4, 64),
        ("llama", {"n_kv_heads": 1}, "bfloat16", 4 * 2 * 16 * 2, 64),
        ("mistral", {"n_kv_heads": 2, "attention": windowed("mistral", window=16)}, "float32",
         4 * 2 * 32 * 4, 16),
        # every other layer sees everything
        ("gemma2", {"n_kv_heads": 2, "head_dim": 16, "attention": windowed("gemma2", window=16)}, "float32",
         4 * 2 * 32 * 4, (16 + 64) / 2),
        ("deepseek_v3", {}, "float32", 4 * (64 + 16) * 4, 64),  # the latent vector and one rotated key
    ],
)  # fmt: skip
def test_cache(
    preset: str, changes: dict[str, Any], dtype: Any, per_token: int, needed_tokens: float
) -> None:
    model = on_meta(load_model(preset, **{**SIZES, **changes}), vocab_size=50, max_seq_len=64)
    size = cache_size(model, 64, Precision(dtype=dtype))
    assert size.per_token == per_token
    assert size.needed == per_token * needed_tokens
    assert size.taken >= size.needed
    assert all(p.is_meta for p in model.parameters())
