"""task=export: a trained model in the form that other tools read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from llm.checkpoints.huggingface import load_pretrained, save_pretrained
from llm.checkpoints.pretrained import Pretrained, of_one_model
from llm.checkpoints.recipe import plain
from llm.files import sync
from llm.models.accounting import count_parameters
from llm.models.adapters.merge import merged
from llm.models.evaluating import evaluating
from llm.runs.run import Run
from llm.types import Batch, ConfigError

Dtype = Literal["float32", "bfloat16", "float16"]


@of_one_model
def export(
    *,
    run: Run,
    output: str,
    format: Literal["huggingface"] = "huggingface",
    dtype: Dtype | None = None,
    checkpoint: str | None = None,
    model: Pretrained | None = None,
) -> None:
    """Writes a model, its tokenizer and its chat template; adapters are merged into the weights.

    What was written is read again, and must give the very logits of what was meant to be written, before
    `output` appears under its name.

    Args:
        run: Where it is noted what was written.
        output: The directory to make.
        format: ``huggingface``: ``config.json``, safetensors and the tokenizer's files.
        dtype: Of the weights; as they are when null.
        checkpoint: A run's folder or one of its checkpoints, a Hugging Face directory, or a GGUF file.
        model: A trained model in place of `checkpoint`, as ``model=pretrained model.hub=org/name``.

    Raises:
        ConfigError: there is something at `output` already, the model is of no architecture that the format
            knows, or its tokenizer cannot be written.
    """
    target = Path(output).expanduser().absolute()
    if target.exists():
        raise ConfigError("output", output, "is there already; give the name of a new directory")
    loaded, tokenizer, info = Pretrained.chosen(checkpoint, model).load(run)
    recipe = plain(info["config"])
    whole = merged(cast(nn.Module, loaded))
    if dtype is not None:
        whole = whole.to(getattr(torch, dtype))
    hidden = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with run.progress("writing", None, unit="files"):
            family = save_pretrained(whole, tokenizer, hidden, recipe=recipe, chats=bool(info.get("chat")))
            _require_same(whole, load_pretrained(hidden, key="output"))
        sync(hidden)
        hidden.rename(target)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    run.summary.update(
        n_params=count_parameters(whole),
        format=format,
        architecture=family.architecture,
        output=str(target),
    )
    run.say(f"{target}: {family.architecture}; transformers.AutoModelForCausalLM.from_pretrained reads it")


@torch.no_grad()
def _require_same(written: nn.Module, read: nn.Module) -> None:
    """Refuses a directory that would not give the model back."""
    sizes: Any = written
    tokens = torch.arange(min(16, sizes.max_seq_len))[None] % sizes.vocab_size
    with evaluating(written):
        same = torch.equal(written(Batch(tokens)), read(Batch(tokens)))
    assert same, "the exported model gives other logits than the one it was made of"
