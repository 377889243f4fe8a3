"""A model of ours from tensors under other names, whatever file they are in."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from llm.checking import check
from llm.checkpoints.families.base import Family
from llm.config import build
from llm.models.weights import persistent
from llm.types import ConfigError

HARMLESS = (
    *("rotary_emb.inv_freq", "attn.bias", "attn.masked_bias", "attention.bias", "attention.masked_bias"),
    *("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"),
    "EncDecAttention.relative_attention_bias.weight",
)
"""Endings of tensors that old files hold beside the weights: tables that follow from the config,
second copies of T5's embeddings, and positions where it never had any."""


def assemble(
    family: Family,
    recipe: dict[str, Any],
    theirs: Mapping[str, Any],
    stored: Mapping[str, Callable[[], Tensor]],
    *,
    max_seq_len: int | None,
    path: str | Path,
    key: str,
    on_tensor: Callable[[], object] = lambda: None,
) -> nn.Module:
    """The model of `recipe` with the tensors of a file, on the CPU, in evaluation mode.

    Args:
        family: its names of tensors.
        recipe: our config of the model, from `read_config`.
        theirs: the whole ``config.json``, or what stands for it.
        stored: reads a tensor, by its name in the file; called once for each that is needed.
        max_seq_len: longest sequence, in tokens; None for the one it was trained with.
        path: of the file, for errors.
        key: the config key to name in errors.
        on_tensor: called after each of our tensors is made.

    Raises:
        ConfigError: tensors are missing, unexpected or of another shape; all of them are named at once, each
            with the key of ``config.json`` that its size comes from.
    """
    recipe = _with_head(family, recipe, stored)
    longest = max_seq_len if max_seq_len is not None else theirs.get(family.positions, family.longest)
    sizes = {"vocab_size": theirs.get("vocab_size"), "max_seq_len": longest}
    whole = {**recipe, **sizes, "_partial_": False}
    _require_sound(family, whole, path, key)
    with torch.device("meta"):
        model: nn.Module = build(whole)
    weights: dict[str, Tensor] = {}
    used: set[str] = set()
    wrong: list[str] = []
    for name, wanted in persistent(model).items():
        rule, names = family.rule(name)
        found = [n if n in stored else n.removeprefix(family.optional_prefix) for n in names]
        used.update(found)
        if missing := [n for n in found if n not in stored]:
            wrong += [f"{n} is missing{_number_of(n)}" for n in missing]
            continue
        shape = list(wanted.shape)
        try:
            tensor = rule.join([stored[n]() for n in found], recipe)
        except RuntimeError:  # sizes that cannot even be put together
            wrong.append(f"{', '.join(found)} do not make a {shape}{_sizes(shape, theirs)}")
            continue
        if list(tensor.shape) != shape:
            differing = [n for n, m in zip(shape, tensor.shape, strict=False) if n != m]
            made = f"{', '.join(found)} make {list(tensor.shape)} in place of {shape}"
            wrong.append(f"{made}{_sizes(differing, theirs)}")
        if not tensor.is_floating_point():
            wrong.append(f"{', '.join(found)}: numbers of the type {tensor.dtype} are no weights")
        elif not tensor.isfinite().all():
            wrong.append(f"{', '.join(found)}: holds values that are not finite")
        weights[name] = tensor
        on_tensor()
    tied = set(family.rule("unembedding.weight")[1]) if recipe.get("tie_embeddings") else set()
    extra = sorted(n for n in stored if n not in used | tied and not n.endswith(HARMLESS))
    wrong += [f"{n} is unexpected{_number_of(n)}" for n in extra]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        mend = f"does not fit its config.json: {'; '.join(wrong[:5])}{more}; fetch or write both again"
        raise ConfigError(key, path, mend)
    model.load_state_dict(weights, strict=False, assign=True)
    fill_tables(model)
    model.recipe = recipe  # type: ignore[assignment]
    return model.eval()


def _require_sound(family: Family, recipe: Mapping[str, Any], path: str | Path, key: str) -> None:
    """Refuses a config whose values cannot be those of a model, under the names they have in the file."""
    try:
        check(OmegaConf.create({"model": dict(recipe)}))
    except ExceptionGroup as mistakes:
        mistake = next(one for one in mistakes.exceptions if isinstance(one, ConfigError))
        ours = mistake.key.removeprefix("model.")
        names = {**{at: one.key for at, one in family.all_fields()}, "max_seq_len": family.positions}
        mend = f"its config.json has {names.get(ours, ours)}={mistake.value}: {mistake.mend}"
        raise ConfigError(key, path, f"{mend}; fetch or write it again") from mistakes


def _with_head(
    family: Family, recipe: dict[str, Any], stored: Mapping[str, Callable[[], Tensor]]
) -> dict[str, Any]:
    """`recipe` with a head of its own when the file has one that is not the embeddings again."""
    (embedding,), (head,) = (family.rule(f"{name}.weight")[1] for name in ("embedding", "unembedding"))
    if not family.head_decides or head not in stored or embedding not in stored:
        return recipe
    return {**recipe, "tie_embeddings": torch.equal(stored[head](), stored[embedding]())}


def fill_tables(model: nn.Module) -> None:
    """What is no weight and follows from the sizes, as rotary tables, of a model made without storage."""
    tables = {name: buffer for name, buffer in model.named_buffers() if buffer.is_meta}
    for name, buffer in tables.items():
        owner = model.get_submodule(name.rpartition(".")[0])
        setattr(owner, name.rpartition(".")[2], torch.empty_like(buffer, device="cpu"))
    for owner in {model.get_submodule(name.rpartition(".")[0]) for name in tables}:
        owner.init_weights(torch.Generator())  # type: ignore[operator]


def _sizes(expected: list[int], theirs: Mapping[str, Any]) -> str:
    """Which keys of their config say `expected`."""
    keys = [k for k, v in theirs.items() if isinstance(v, int) and not isinstance(v, bool) and v in expected]
    return f" (see its {', '.join(keys)})" if keys else ""


def _number_of(name: str) -> str:
    """Which key of their config says whether a tensor is there."""
    if re.search(r"\bexperts\.\d", name):
        return " (see its number of experts)"
    if re.search(r"\.(layers|h|block|blk)\.\d", name):
        return (
            " (see its number of layers, and its biases)"
            if name.endswith("bias")
            else " (see its number of layers)"
        )
    return " (see its tie_word_embeddings)" if re.search(r"lm_head|embed_out|embed_tokens", name) else ""
