"""Counts against the published ones, FLOPs against torch's own counter."""

from __future__ import annotations

import math

import pytest
import torch
from omegaconf import OmegaConf
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from llm.models.accounting import active_parameters, count_parameters, flops_per_token, parts
from llm.models.adapters.qlora import qlora
from llm.types import Batch
from tests.models.composition import CONF, ids, load_model, on_meta, presets, small


@pytest.mark.parametrize(("bias", "count"), [(True, 124_439_808), (False, 124_337_664)])
def test_gpt2_counts_as_released(bias: bool, count: int):
    model = on_meta(load_model("gpt2", vocab_size=50257, max_seq_len=1024, bias=bias))
    assert count_parameters(model) == count
    assert all(p.is_meta for p in model.parameters())


def test_llama_2_7b_counts_as_released():
    sizes = {"d_model": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": None, "d_ff": 11008}
    model = on_meta(load_model("llama", vocab_size=32000, max_seq_len=4096, **sizes))
    assert count_parameters(model) == 6_738_415_616


def released(preset: str, parent: str):
    """A preset that only changes the sizes of another one, as its file says."""
    sizes = OmegaConf.to_container(OmegaConf.load(CONF / f"{preset}.yaml"))
    return on_meta(
        load_model(parent, **{k: v for k, v in sizes.items() if k not in ("defaults", "position")})
    )


def test_llama_3_8b_counts_as_released():
    model = released("llama3_8b", "llama")
    assert count_parameters(model) == active_parameters(model) == 8_030_261_248


def test_mixtral_8x7b_counts_as_released():
    model = released("mixtral_8x7b", "mixtral")
    found = parts(model, 1.0)
    assert count_parameters(model) == sum(p.parameters for p in found.values()) == 46_702_792_704
    assert active_parameters(model) == sum(p.active for p in found.values()) == 12_879_925_248
    assert found["experts"].parameters == 4 * found["experts"].active == 32 * 8 * 3 * 4096 * 14336
    assert found["experts"].flops == 2 * found["experts"].active


def test_gpt2_flops_as_published():
    """nanoGPT's transformer_sizing notebook: no biases, every token attends to all 1,024."""
    model = on_meta(load_model("gpt2", vocab_size=50257, max_seq_len=1024, bias=False))
    assert 1024 * flops_per_token(model, 1024) == 291_648_307_200


@pytest.mark.parametrize("preset", presets())
def test_every_parameter_is_of_some_kind(preset: str):
    model = small(preset)
    found = parts(model, 20)
    assert sum(part.parameters for part in found.values()) == count_parameters(model)
    assert "other" not in found
    assert {"embedding", "attention", "norms", "head"} <= set(found)
    assert found["embedding"].flops == found["norms"].flops == 0


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


def test_an_adapter_adds_its_own_work_and_four_bits_lose_none():
    model = small("decoder")
    plain = flops_per_token(model, 16)
    rank, widths = 2, [(m.in_features, m.out_features) for b in model.blocks for m in b.modules()
                       if isinstance(m, torch.nn.Linear)]  # fmt: skip
    added = 2 * rank * sum(a + b for a, b in widths)
    adapted = qlora(small("decoder"), rank=rank)
    assert flops_per_token(adapted, 16) == plain + added
    assert count_parameters(adapted) == count_parameters(model) + added // 2
