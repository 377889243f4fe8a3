"""What every part promises (llm/models/base.py), checked inside a small model."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from llm.models.accounting import flops_per_token
from llm.models.cache import KVCache
from llm.models.decoder import Decoder
from llm.types import Batch
from tests.models.composition import SMALL, ids, load_model, on_meta, small


def check_part(group: str, part: Any) -> None:
    """All promises, for a part in an otherwise ordinary model; the part is a partial as in a config."""
    # Without positions of its own the LLaMA-like default would not notice a part that mixes them up.
    for preset, overrides in (("decoder", {"n_kv_heads": 2}), ("gpt2", {"n_heads": 4})):
        overrides = {**overrides, group: part}
        check_shapes_and_gradients(small(preset, **overrides))
        check_causality(small(preset, **overrides).eval())
        check_cache(small(preset, **overrides).eval())
        check_padding(small(preset, **overrides).eval())
        check_documents(small(preset, **overrides))
        check_initialisation(preset, overrides)
        check_plan(small(preset, **overrides))
        assert flops_per_token(small(preset, **overrides), 10.0) > 0


def check_shapes_and_gradients(model: Decoder) -> None:
    tokens = ids(8, 30)  # enough for every expert of a mixture to have some
    hidden = model.hidden(Batch(tokens))
    assert hidden.shape == (8, 30, SMALL["d_model"])
    logits = model(Batch(tokens))
    assert logits.shape == (8, 30, SMALL["vocab_size"])
    torch.testing.assert_close(logits, model.head(hidden), rtol=0, atol=0)
    F.cross_entropy(logits.flatten(0, 1), tokens.flatten()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient"
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, f"{name} has a gradient of zero"


def check_causality(model: Decoder) -> None:
    tokens = ids(2, 12)
    changed = tokens.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % SMALL["vocab_size"]
    with torch.no_grad():
        before, after = model(Batch(tokens)), model(Batch(changed))
    torch.testing.assert_close(before[:, :7], after[:, :7], rtol=0, atol=1e-6)
    assert (before[:, 7:] - after[:, 7:]).abs().max() > 1e-4


@torch.no_grad()
def check_cache(model: Decoder) -> None:
    """A prompt, a chunk and single tokens through the cache give what one pass gives."""
    tokens = ids(2, 14)
    whole = model(Batch(tokens))
    cache = KVCache(14)
    parts = [model(Batch(part), cache) for part in tokens.split([6, 4, 1, 1, 1, 1], dim=1)]
    assert cache.length == 14
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-5)


@torch.no_grad()
def check_padding(model: Decoder) -> None:
    """Rows of different lengths, padded on the left, give what each gives alone; also with a cache."""
    tokens, lengths = ids(3, 10), (10, 4, 7)
    padding = torch.arange(10) >= 10 - torch.tensor(lengths)[:, None]
    together = model(Batch(tokens, padding=padding))
    assert together.isfinite().all()
    cache = KVCache(10)
    first = model(Batch(tokens[:, :8], padding=padding[:, :8]), cache)
    rest = model(Batch(tokens[:, 8:], padding=padding), cache)
    for row, length in enumerate(lengths):
        alone = model(Batch(tokens[row : row + 1, 10 - length :]))[0]
        torch.testing.assert_close(together[row, 10 - length :], alone, rtol=0, atol=1e-5)
        cached = torch.cat((first, rest), 1)[row, 10 - length :]
        torch.testing.assert_close(cached, alone, rtol=0, atol=1e-5)


LENGTHS = (9, 1, 14)
"""Of the documents in a row."""


def check_documents(model: Decoder) -> None:
    """Documents that share a row give the scores and the gradients that each gives alone.

    In float64: rounding alone may put a unit on the other side of a ReLU's kink.
    """
    model.double()
    tokens, n = ids(2, sum(LENGTHS)), 2 * sum(LENGTHS)
    targets = ids(2, sum(LENGTHS), seed=1)
    documents = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS)).expand_as(tokens)

    def gradients() -> dict[str, torch.Tensor]:
        found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        model.zero_grad(set_to_none=True)
        return found

    def backward(logits: torch.Tensor, targets: torch.Tensor) -> None:
        (F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum") / n).backward()

    together = model(Batch(tokens, documents=documents))
    backward(together, targets)
    packed = gradients()
    for part, logits, wanted in zip(
        tokens.split(LENGTHS, 1), together.split(LENGTHS, 1), targets.split(LENGTHS, 1), strict=True
    ):
        alone = model(Batch(part))
        torch.testing.assert_close(logits, alone, rtol=0, atol=1e-5)
        backward(alone, wanted)
    alone_gradients = gradients()
    assert packed.keys() == alone_gradients.keys()
    for name, gradient in alone_gradients.items():
        torch.testing.assert_close(packed[name], gradient, rtol=0, atol=1e-5, msg=name)


def check_initialisation(preset: str, overrides: dict[str, Any]) -> None:
    """Made by the generator alone, all of it, also when the model was built without storage."""
    torch.manual_seed(1)
    one = small(preset, seed=5, **overrides)
    torch.manual_seed(2)
    two = on_meta(load_model(preset, **{**SMALL, **overrides})).to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*two.parameters(), *two.buffers()):
            tensor.fill_(torch.nan)
    state = torch.get_rng_state()
    two.init_weights(torch.Generator().manual_seed(5))
    assert torch.equal(state, torch.get_rng_state()), "init_weights draws from the global random state"
    for (name, a), (_, b) in zip(_tensors(one), _tensors(two), strict=True):
        assert torch.equal(a, b), f"{name} is not set by init_weights, or not from its generator alone"
    other = small(preset, seed=6, **overrides)
    assert not torch.equal(one.embedding.weight, other.embedding.weight)


def check_plan(model: Decoder) -> None:
    plan = model.parallel_plan()
    for name, style in plan.items():
        module = model.get_submodule(name)
        assert style in ("block", "column", "row"), (name, style)
        assert style == "block" or isinstance(module, torch.nn.Linear), name
    assert [n for n, s in plan.items() if s == "block"] == [f"blocks.{i}" for i in range(len(model.blocks))]
    for part in ("attention", "feed_forward"):
        assert [s for n, s in plan.items() if n.startswith(f"blocks.0.{part}.")].count("row") >= 1


def _tensors(model: Decoder) -> list[tuple[str, torch.Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]
