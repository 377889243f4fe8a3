"""Counts against the published ones, FLOPs against torch's own counter."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from llm.models.accounting import count_parameters, flops_per_token
from llm.types import Batch
from tests.models.composition import ids, load_model, on_meta, small


@pytest.mark.parametrize(("bias", "count"), [(True, 124_439_808), (False, 124_337_664)])
def test_gpt2_counts_as_released(bias: bool, count: int):
    model = on_meta(load_model("gpt2", vocab_size=50257, max_seq_len=1024, bias=bias))
    assert count_parameters(model) == count
    assert all(p.is_meta for p in model.parameters())


def test_llama_2_7b_counts_as_released():
    sizes = {"d_model": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": None, "d_ff": 11008}
    model = on_meta(load_model("llama", vocab_size=32000, max_seq_len=4096, **sizes))
    assert count_parameters(model) == 6_738_415_616


def test_a_tied_matrix_counts_once():
    model, untied = (
        on_meta(load_model("gpt2", vocab_size=50257, max_seq_len=1024, tie_embeddings=tied))
        for tied in (True, False)
    )
    assert count_parameters(untied) == count_parameters(model) + 50257 * 768


@pytest.mark.parametrize(("preset", "overrides"), [("gpt2", {}), ("llama", {"n_kv_heads": 2})])
def test_flops_are_torchs(preset: str, overrides: dict):
    """Attention as plain matrix products, where each token attends to all, for torch counts no CPU kernel."""
    model = small(preset, **overrides)
    plain = sdpa_kernel(SDPBackend.MATH)
    with FlopCounterMode(display=False) as counter, plain, torch.no_grad():
        model(Batch(ids(3, 20)))
    assert counter.get_total_flops() == 3 * 20 * flops_per_token(model, 20)


def test_flops_need_no_storage_and_agree_with_the_rule_of_thumb():
    model = on_meta(load_model("gpt2", vocab_size=50257, max_seq_len=1024))
    matrices = count_parameters(model) - 1024 * 768  # looked up, not multiplied
    assert math.isclose(flops_per_token(model, 0), 2 * matrices, rel_tol=1e-2)
    assert flops_per_token(model, 1024) - flops_per_token(model, 0) == 12 * 4 * 1024 * 768
