"""The decoder against Hugging Face's GPT-2 and LLaMA, its initialisation, masks and messages."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from llm.models.decoder import Decoder
from llm.models.masks import attention_mask
from llm.types import Batch, ConfigError
from tests.models.composition import SMALL, ids, load_model, small
from tests.models.reference import gpt2_reference, llama_reference


def _compare(model: Decoder, reference: nn.Module, pairs: list, **inputs: torch.Tensor) -> None:
    """Same weights: logits within 1e-5, gradients within 1e-4."""
    tokens = ids(3, 24)
    ours = model(Batch(tokens, **({"positions": inputs["position_ids"]} if inputs else {})))
    theirs = reference(input_ids=tokens, **inputs).logits
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    targets = ids(3, 24, seed=1).flatten()
    F.cross_entropy(ours.flatten(0, 1), targets).backward()
    F.cross_entropy(theirs.flatten(0, 1), targets).backward()
    assert {id(p) for p, _ in pairs} == {id(p) for p in model.parameters()}, "a weight was not compared"
    for parameter, read in pairs:
        torch.testing.assert_close(parameter.grad, read(lambda p: p.grad), rtol=0, atol=1e-4)


@pytest.mark.parametrize("d_ff", [None, 40])
def test_gpt2_is_hugging_faces(d_ff: int | None):
    model = small("gpt2", d_ff=d_ff).train()
    _compare(model, *gpt2_reference(model))


@pytest.mark.parametrize(("n_kv_heads", "tied"), [(6, True), (2, False), (1, True)])
def test_llama_is_hugging_faces(n_kv_heads: int, tied: bool):
    model = small("llama", n_kv_heads=n_kv_heads, tie_embeddings=tied).train()
    _compare(model, *llama_reference(model))


def test_llama_at_given_positions():
    model = small("llama", n_kv_heads=2).train()
    places = torch.stack([torch.arange(24) + start for start in (0, 3, 8)])
    _compare(model, *llama_reference(model), position_ids=places)


def test_nanogpt_is_gpt2_without_biases():
    model = small("gpt2", bias=False)
    assert not [name for name, _ in model.named_parameters() if name.endswith("bias")]
    assert small("gpt2", dropout=0.2).blocks[0].attention.dropout == 0.2


def test_initialisation_follows_gpt2():
    model = load_model("gpt2", vocab_size=500, max_seq_len=100, d_model=256, n_layers=8, n_heads=4)()
    model.init_weights(torch.Generator().manual_seed(0))
    plan = model.parallel_plan()
    n_scaled = 0
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            scaled = plan.get(name) == "row"
            n_scaled += scaled
            std = 0.02 / math.sqrt(2 * 8) if scaled else 0.02
            n = module.weight.numel()
            # The standard error of a standard deviation is std / sqrt(2n): five of them.
            assert abs(module.weight.std().item() - std) < 5 * std / math.sqrt(2 * n), name
            assert abs(module.weight.mean().item()) < 5 * std / math.sqrt(n), name
            if isinstance(module, nn.Linear):
                assert not module.bias.any()
        elif isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all()
            assert not module.bias.any()
    assert n_scaled == 16


def test_initialisation_is_the_same_bit_by_bit():
    one, two = small(seed=3), small(seed=3)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_dropout_only_while_training():
    model = small("gpt2", dropout=0.5)
    batch = Batch(ids(2, 16))
    assert not torch.equal(model.train()(batch), model(batch))
    model.eval()
    assert torch.equal(model(batch), model(batch))
    torch.testing.assert_close(model(batch), small("gpt2")(batch), rtol=0, atol=0)


def test_tied_embeddings_are_one_tensor_under_one_name():
    tied, untied = small(tie_embeddings=True), small(tie_embeddings=False)
    assert set(untied.state_dict()) - set(tied.state_dict()) == {"unembedding.weight"}
    assert not [name for name in tied.state_dict() if "unembedding" in name or "cos" in name]


def test_bfloat16_runs_and_stays_close():
    model = small("llama", n_kv_heads=2).eval()
    batch = Batch(ids(2, 16))
    with torch.no_grad():
        exact = model(batch)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(batch)
        half = model.to(torch.bfloat16)(batch)
    for logits in (mixed, half):
        assert logits.dtype == torch.bfloat16
        torch.testing.assert_close(logits.float(), exact, rtol=0, atol=0.05)


def test_mask_is_as_drawn():
    padding = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 1, 1], [0, 0, 0, 1, 1]]).bool()
    mask = attention_mask(2, 3, padding, torch.device("cpu")).int()
    assert mask[0, 0].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert mask[1, 0].tolist() == [[0, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 1]]
    # the padding at place 2 sees itself
    assert mask[2, 0].tolist() == [[0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 1, 1]]


@pytest.mark.parametrize(("n_past", "n_new"), [(0, 5), (5, 1), (0, 1)])
def test_no_mask_where_none_is_needed(n_past: int, n_new: int):
    assert attention_mask(n_past, n_new, None, torch.device("cpu")) is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"d_model": 128, "n_heads": 5}, "n_heads=5: d_model=128 is not divisible by it; nearest: 4, 8"),
        ({"d_model": 128, "n_heads": 200}, "n_heads=200: d_model=128 is not divisible by it; nearest: 128"),
        ({"n_kv_heads": 4}, "n_kv_heads=4: n_heads=6 is not divisible by it; nearest: 3, 6"),
        ({"n_kv_heads": 12}, "n_kv_heads=12: n_heads=6 is not divisible by it; nearest: 6"),
        (
            {"d_model": 30, "n_heads": 6},
            "n_heads=6: rotary positions turn pairs, and d_model/n_heads=5 is odd; make it even",
        ),
    ],
)
def test_sizes_that_do_not_fit(overrides: dict, message: str):
    with pytest.raises(ConfigError) as error:
        small(**overrides)
    assert str(error.value) == message


def test_the_same_rule_can_be_asked_up_front():
    with pytest.raises(ConfigError, match="nearest: 4, 8"):
        Decoder.check_arguments(d_model=128, n_heads=5)
    Decoder.check_arguments(d_model=128, n_heads=8, n_kv_heads=2)


def test_a_sequence_beyond_the_context():
    with pytest.raises(ConfigError, match=r"seq_len=33: the model reads at most max_seq_len=32 tokens"):
        small()(Batch(ids(1, SMALL["max_seq_len"] + 1)))
