"""Checkpoints of small models that nobody had to train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from llm.checkpoints.local import LocalCheckpoints
from llm.checkpoints.recipe import recipe_of
from llm.models.weights import persistent
from llm.tokenizers import byte
from llm.types import Tokenizer
from tests.models.composition import load_model


def save(directory: Path, seed: int = 1, tokenizer: Tokenizer | None = None, **changes: Any) -> Path:
    """The folder of a run that left a model; its weights are as they were first."""
    tokenizer = tokenizer or byte.train([])
    sizes = {
        "d_model": 16,
        "n_layers": 1,
        "n_heads": 4,
        "max_seq_len": 16,
        "vocab_size": tokenizer.vocab_size,
    }
    recipe = load_model("decoder", **{**sizes, "n_kv_heads": None, **changes})
    model = recipe()
    model.init_weights(torch.Generator().manual_seed(seed))
    config = recipe_of(recipe)
    LocalCheckpoints().save(
        directory / "checkpoints",
        step=4,
        model=persistent(model),
        optimizer={},
        state={"seed": seed},
        description={
            "vocab_size": config.pop("vocab_size"),
            "max_seq_len": config.pop("max_seq_len"),
            "config": config,
            "info": {"chat": seed == 2},
        },
        tokenizer=tokenizer,
    )
    return directory
