"""Several documents in a row: each as if it were alone, in every family, dense and in blocks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from llm.models.attention.multi_head import MultiHeadAttention
from llm.models.base import Sizes
from llm.models.masks import DocumentBlocks, attention_mask, places_in_documents
from llm.training.losses import NextToken
from llm.types import Batch
from tests.models.composition import SMALL, ids, load_part, presets, small
from tests.models.contract import LENGTHS, check_documents

CPU = torch.device("cpu")
DOCUMENTS = torch.tensor([[3] * 5 + [7] * 1 + [1] * 10, [0] * 16])


def test_mask_is_as_drawn() -> None:
    mask = attention_mask(0, 5, None, CPU, documents=torch.tensor([[0, 0, 1, 1, 1]]))
    drawn = ["10000", "11000", "00100", "00110", "00111"]
    assert ["".join(map(str, row)) for row in mask[0, 0].int().tolist()] == drawn


def test_padding_belongs_to_nobody() -> None:
    padding = torch.tensor([[False, True, True, True, True]])
    mask = attention_mask(0, 5, padding, CPU, documents=torch.tensor([[0, 0, 0, 1, 1]]))
    drawn = ["10000", "01000", "01100", "00010", "00011"]
    assert ["".join(map(str, row)) for row in mask[0, 0].int().tolist()] == drawn


def test_places_start_again_with_each_document() -> None:
    places = places_in_documents(DOCUMENTS)
    assert places[0].tolist() == [0, 1, 2, 3, 4, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert places[1].tolist() == list(range(16))


@pytest.mark.parametrize("preset", presets())
def test_each_document_is_as_if_alone(preset: str) -> None:
    check_documents(small(preset))


VARIANTS = {
    "a window": {"attention": {"window": 3}},
    "a window in some layers": {"attention": {"window": 3, "full_every": 2}},
    "soft caps": {"attention": {"soft_cap": 2.0, "window": 4}},
    "sinks": {"attention": {"sinks": True, "window": 4}},
    "alibi": {"position": "alibi"},
    "alibi and a window": {"position": "alibi", "attention": {"window": 3}},
    "learned places": {"position": "learned"},
    "shared keys": {"n_kv_heads": 2},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_with(name: str) -> None:
    changes = dict(VARIANTS[name])
    if "attention" in changes:
        part = load_part("attention", "multi_head")
        part.keywords.update(changes["attention"])
        changes["attention"] = part
    if "position" in changes:
        changes["position"] = load_part("position", changes["position"])
    check_documents(small("decoder", **changes))


def test_the_check_can_fail() -> None:
    model = small("gpt2")
    model._mask = lambda n_past, n_new, batch: None  # type: ignore[method-assign]
    with pytest.raises(AssertionError):
        check_documents(model)


def test_places_matter_to_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm.models.decoder.places_in_documents", lambda d: torch.arange(d.shape[1])[None])
    check_documents(small("llama"))  # only distances count
    with pytest.raises(AssertionError):
        check_documents(small("gpt2"))


def test_the_loss_is_that_of_the_documents() -> None:
    model, n = small("llama"), sum(LENGTHS)
    tokens, targets = ids(1, n), ids(1, n, seed=1)
    documents = torch.repeat_interleave(torch.arange(3), torch.tensor(LENGTHS))[None]
    packed, _ = NextToken().loss(model, Batch(tokens, targets, documents=documents))
    parts = zip(tokens.split(LENGTHS, 1), targets.split(LENGTHS, 1), LENGTHS, strict=True)
    alone = sum(NextToken().loss(model, Batch(t, u))[0] * length for t, u, length in parts) / n
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-6)
    without, _ = NextToken().loss(model, Batch(tokens, targets))
    assert abs(without.item() - packed.item()) > 1e-3


# ----------------------------------------------------------------------------- blocks


def _attention(**arguments) -> MultiHeadAttention:
    torch.manual_seed(0)
    return MultiHeadAttention(
        Sizes(64, 1, 4, 2, None, 16, True, 0.0), rotate=lambda heads, positions: heads, **arguments
    )


@pytest.mark.parametrize(
    "arguments", [{}, {"window": 4}, {"soft_cap": 0.5}, {"window": 3, "soft_cap": 0.5, "scale": 0.4}]
)
def test_blocks_are_the_dense_mask(arguments: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule that a GPU's kernel is compiled from, run plainly: there is no backward pass on a CPU."""
    # without dynamo, which takes seconds to trace what is run once
    debugging = "torch.nn.attention.flex_attention._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG"
    monkeypatch.setattr(debugging, True, raising=False)
    attention, x = _attention(**arguments), torch.randn(2, 16, 64)
    assert attention.block_masks
    places = places_in_documents(DOCUMENTS)
    with torch.no_grad():
        blocks = attention(x, positions=places, mask=DocumentBlocks(DOCUMENTS))
        dense = attention(x, positions=places, mask=attention_mask(0, 16, None, CPU, documents=DOCUMENTS))
        causal = attention(x, positions=places, mask=None)
    torch.testing.assert_close(blocks, dense, rtol=0, atol=1e-6)
    assert (causal - dense)[0].abs().max() > 1e-3


def test_blocks_are_made_once_for_all_layers() -> None:
    mask = DocumentBlocks(DOCUMENTS)
    assert mask.blocks() is mask.blocks()
    assert mask.blocks(3) is mask.blocks(3)
    assert mask.blocks(3) is not mask.blocks()


def test_empty_blocks_are_left_out() -> None:
    """Of 4 x 4 blocks of 128 places, four documents of 128 need the diagonal and not the triangle's ten."""
    documents = torch.arange(4).repeat_interleave(128)[None]
    assert DocumentBlocks(documents).blocks().kv_num_blocks.sum() == 4
    assert DocumentBlocks(torch.zeros_like(documents)).blocks(64).kv_num_blocks.sum() == 7


def test_who_can_do_with_blocks() -> None:
    class Own(MultiHeadAttention):
        def forward(self, x, *, positions, mask, cache=None, context=None):
            return super().forward(x, positions=positions, mask=mask & mask)

    sizes = Sizes(64, 1, 4, 4, None, 16, False, 0.1)
    dropping = MultiHeadAttention(sizes, rotate=lambda heads, positions: heads)
    assert not dropping.block_masks
    assert dropping.eval().block_masks
    assert not _attention(sinks=True).block_masks
    assert not Own(sizes, rotate=lambda heads, positions: heads).eval().block_masks
    narrow = MultiHeadAttention(Sizes(16, 1, 4, 4, None, 16, False, 0.0), rotate=lambda h, p: h)
    assert not narrow.block_masks


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("preset", ["llama", "mistral", "gemma2"])
def test_a_gpu_works_in_blocks(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"d_model": 128, "n_heads": 4, "n_kv_heads": 2, "max_seq_len": 300, "head_dim": 32}
    model = small(preset, **sizes).cuda()
    tokens, targets = ids(2, 300).cuda(), ids(2, 300, seed=1).cuda().flatten()
    documents = torch.stack([torch.arange(300) // 70, torch.arange(300) // 299]).cuda()
    found = []
    for can in (True, False):
        monkeypatch.setattr(MultiHeadAttention, "block_masks", can)
        logits = model(Batch(tokens, documents=documents))
        F.cross_entropy(logits.flatten(0, 1), targets).backward()
        found.append((logits.detach(), {name: p.grad for name, p in model.named_parameters()}))
        model.zero_grad(set_to_none=True)
    (blocks, grads), (dense, expected) = found
    torch.testing.assert_close(blocks, dense, rtol=0, atol=1e-4)
    for name, gradient in expected.items():
        torch.testing.assert_close(grads[name], gradient, rtol=0, atol=1e-4)
    assert sizes["max_seq_len"] > SMALL["max_seq_len"]
