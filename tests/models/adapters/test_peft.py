"""LoRA and DoRA against peft: the same model, wrapped by either, with the same numbers in it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from llm.models.adapters.dora import DoRALinear, dora
from llm.models.adapters.lora import LoRALinear, lora
from llm.models.adapters.merge import merged
from llm.types import Batch
from tests.models.composition import ids, small

KINDS = [
    pytest.param(False, False, 0.0, "decoder", id="lora"),
    pytest.param(False, True, 0.0, "gpt2", id="rslora, biases"),
    pytest.param(False, False, 0.3, "decoder", id="lora, dropout"),
    pytest.param(True, False, 0.0, "decoder", id="dora"),
    pytest.param(True, False, 0.0, "gpt2", id="dora, biases"),
    pytest.param(True, True, 0.3, "gpt2", id="dora, rslora, dropout"),
]


def pair(preset: str, *, is_dora: bool, stabilised: bool, dropout: float) -> tuple[nn.Module, Any]:
    """Our model with our adapters, and a copy of it with peft's, all of whose numbers are the same."""
    from peft import LoraConfig, inject_adapter_in_model

    base = small(preset, n_heads=4, n_kv_heads=2)
    config = LoraConfig(
        r=3,
        lora_alpha=5,
        lora_dropout=dropout,
        use_dora=is_dora,
        use_rslora=stabilised,
        target_modules=r"blocks\.\d+\.(attention\.(qkv|out)|feed_forward\.(gate|up|down))",
    )
    theirs = inject_adapter_in_model(config, copy.deepcopy(base))
    adapt = dora if is_dora else lora
    ours = adapt(base, rank=3, alpha=5.0, rank_stabilised=stabilised, dropout=dropout)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, layer in ours.named_modules():
            if isinstance(layer, LoRALinear):
                other = theirs.get_submodule(name)
                layer.b.normal_(0, 0.1, generator=generator)
                other.lora_A["default"].weight.copy_(layer.a)
                other.lora_B["default"].weight.copy_(layer.b)
                if isinstance(layer, DoRALinear):
                    torch.testing.assert_close(other.lora_magnitude_vector["default"].weight, layer.magnitude)
                    layer.magnitude.mul_(1 + 0.2 * torch.rand(layer.out_features, generator=generator))
                    other.lora_magnitude_vector["default"].weight.copy_(layer.magnitude)
    return ours, theirs


def loss_of(model: nn.Module) -> tuple[Tensor, Tensor]:
    torch.manual_seed(3)  # what is dropped
    tokens = ids(3, 12)
    logits = model(Batch(tokens))
    return logits, nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())


@pytest.mark.parametrize(("is_dora", "stabilised", "dropout", "preset"), KINDS)
def test_forward_gradients_and_merged_weights_are_pefts(
    is_dora: bool, stabilised: bool, dropout: float, preset: str
) -> None:
    ours, theirs = pair(preset, is_dora=is_dora, stabilised=stabilised, dropout=dropout)
    ours.train()
    theirs.train()
    (logits, loss), (expected, other_loss) = loss_of(ours), loss_of(theirs)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-6)
    loss.backward()
    other_loss.backward()

    trained = {name: p.grad for name, p in ours.named_parameters() if p.requires_grad}
    n_theirs = sum(p.requires_grad for p in theirs.parameters())
    layers = [name for name, m in ours.named_modules() if isinstance(m, LoRALinear)]
    assert len(trained) == n_theirs == len(layers) * (3 if is_dora else 2)
    for name in layers:
        other = theirs.get_submodule(name)
        pairs = [("a", other.lora_A["default"].weight), ("b", other.lora_B["default"].weight)]
        if is_dora:
            pairs.append(("magnitude", other.lora_magnitude_vector["default"].weight))
        for part, parameter in pairs:
            grad = trained[f"{name}.{part}"]
            assert grad is not None
            assert grad.abs().max() > 1e-5, "nothing would be compared"
            torch.testing.assert_close(grad, parameter.grad, rtol=0, atol=1e-6)

    plain = merged(ours)
    for name in layers:
        other = theirs.get_submodule(name)
        other.merge()
        torch.testing.assert_close(
            plain.get_submodule(name).weight, other.base_layer.weight, rtol=0, atol=1e-6
        )
    ours.eval()
    torch.testing.assert_close(loss_of(plain.eval())[0], loss_of(ours)[0], rtol=0, atol=1e-5)


def test_first_weights_are_drawn_as_pefts() -> None:
    """Uniform to the same bound, and zero."""
    from peft import LoraConfig, inject_adapter_in_model

    torch.manual_seed(0)
    plain = nn.Sequential(nn.Sequential(nn.Linear(400, 300)))
    theirs = inject_adapter_in_model(LoraConfig(r=64, target_modules=["0.0"]), copy.deepcopy(plain))
    ours = lora(plain, rank=64).get_submodule("0.0")
    other = theirs.get_submodule("0.0")
    assert isinstance(ours, LoRALinear)
    drawn, expected = ours.a.detach(), other.lora_A["default"].weight.detach()
    assert drawn.std() == pytest.approx(expected.std().item(), rel=0.02)
    assert drawn.abs().max() == pytest.approx(1 / 20, rel=1e-3)
    assert expected.abs().max() == pytest.approx(1 / 20, rel=1e-3)
    assert not ours.b.any()
    assert not other.lora_B["default"].weight.any()
