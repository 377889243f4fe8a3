"""DPO against published values, a float64 reference, and trl's own trainer."""

from __future__ import annotations

import copy
import gzip
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llm.alignment.dpo import DPO, dpo_loss
from llm.data.preferences import PreferenceData
from llm.tokenizers.byte import train as byte_tokenizer
from llm.types import Batch
from tests.alignment.conftest import VOCAB_SIZE, completion_mask, preference_batch, whole_ids
from tests.evaluation.conftest import Wrapped

KNOWN = [
    torch.tensor(values)
    for values in ([-0.5, -10, -1], [-0.1, -30, -21], [-0.5, -10.1, -0.1], [-0.1, -20.1, -0.1])
]


def test_known_values() -> None:
    losses = dpo_loss(*KNOWN, beta=0.1)
    torch.testing.assert_close(losses, torch.tensor([0.693147, 0.313262, 0.126928]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("beta", [0.05, 0.5])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_formula_in_float64(beta: float, label_smoothing: float) -> None:
    """cDPO is the cross entropy between a label that is right with 1 - e and sigmoid(beta h)."""
    policy_chosen, policy_rejected, reference_chosen, reference_rejected = (k.double().numpy() for k in KNOWN)
    h = beta * (policy_chosen - policy_rejected - reference_chosen + reference_rejected)
    probability = 1 / (1 + np.exp(-h))
    expected = -(1 - label_smoothing) * np.log(probability) - label_smoothing * np.log(1 - probability)
    losses = dpo_loss(*(k.double() for k in KNOWN), beta=beta, label_smoothing=label_smoothing)
    np.testing.assert_allclose(losses.numpy(), expected, atol=1e-12)


def moved_policy() -> tuple[Wrapped, Wrapped]:
    """An initial model, and one that training has moved away from it."""
    initial = Wrapped(VOCAB_SIZE, 32)
    policy = copy.deepcopy(initial)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return initial, policy


@pytest.fixture(scope="module")
def trl_loss(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`trl_loss(batch, **settings)`: loss, gradients and logged metrics of trl's DPOTrainer on a batch."""
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    for name in ("trl", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)
    words = Tokenizer(models.WordLevel({"?": 0, "end": 1, "a": 2, "b": 3, "c": 4}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="?", eos_token="end", pad_token="end"
    )
    rows = datasets.Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])

    def compute(batch: Batch, **settings: Any) -> tuple[float, dict[str, Any], dict[str, float]]:
        initial, policy = moved_policy()
        config = trl.DPOConfig(
            output_dir=str(tmp_path_factory.mktemp("trl")),
            use_cpu=True,
            bf16=False,
            report_to="none",
            gradient_checkpointing=False,
            disable_tqdm=True,
            **settings,
        )
        trainer = trl.DPOTrainer(
            model=policy.llama,
            ref_model=initial.llama,
            args=config,
            train_dataset=rows,
            processing_class=tokenizer,
        )
        ids = whole_ids(batch)
        inputs = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "completion_mask": completion_mask(batch).long(),
        }
        loss = trainer.compute_loss(trainer.model, inputs)
        loss.backward()
        gradients = {name: p.grad for name, p in policy.named_parameters()}
        metrics = {name: values[-1] for name, values in trainer._metrics["train"].items()}
        return loss.item(), gradients, metrics

    return compute


def ours(batch: Batch, algorithm: DPO) -> tuple[float, dict[str, Any], dict[str, float]]:
    initial, policy = moved_policy()
    algorithm.setup(initial)
    loss, metrics = algorithm.loss(policy, algorithm.collect(policy, batch))
    loss.backward()
    gradients = {name: p.grad for name, p in policy.named_parameters()}
    return loss.item(), gradients, {name: value.item() for name, value in metrics.items()}


def assert_gradients_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    assert max(float(g.abs().max()) for g in expected.values()) > 1e-3, "nothing to compare"
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=1e-5)


def test_loss_gradients_and_metrics_equal_trl(trl_loss: Any) -> None:
    batch = preference_batch()
    expected, expected_gradients, expected_metrics = trl_loss(batch, beta=0.1)
    loss, gradients, metrics = ours(batch, DPO(beta=0.1))
    assert loss == pytest.approx(expected, abs=1e-6)
    assert abs(loss - 0.693147) > 1e-3, "the policy has moved"
    assert_gradients_equal(gradients, expected_gradients)
    for mine, theirs in {
        "reward_margin": "rewards/margins",
        "reward_accuracy": "rewards/accuracies",
        "chosen_reward": "rewards/chosen",
        "rejected_reward": "rewards/rejected",
    }.items():
        assert metrics[mine] == pytest.approx(expected_metrics[theirs], abs=1e-5), mine


def test_length_normalised_equals_trl(trl_loss: Any) -> None:
    batch = preference_batch()
    expected, expected_gradients, _ = trl_loss(batch, beta=2.0, loss_type=["sigmoid_norm"])
    loss, gradients, _ = ours(batch, DPO(beta=2.0, length_normalised=True))
    assert loss == pytest.approx(expected, abs=1e-6)
    assert_gradients_equal(gradients, expected_gradients)


def test_label_smoothing_equals_trl(trl_loss: Any) -> None:
    """trl smooths labels in its AOT loss, which for a single pair (nothing to sort) is cDPO."""
    batch = preference_batch(n_pairs=1)
    expected, expected_gradients, _ = trl_loss(batch, beta=0.1, loss_type=["aot"], label_smoothing=0.1)
    loss, gradients, _ = ours(batch, DPO(beta=0.1, label_smoothing=0.1))
    assert loss == pytest.approx(expected, abs=1e-6)
    assert_gradients_equal(gradients, expected_gradients)


def test_reference_is_frozen() -> None:
    policy, batch, algorithm = Wrapped(VOCAB_SIZE, 32), preference_batch(), DPO()
    with pytest.raises(RuntimeError, match="setup"):
        algorithm.loss(policy, batch)
    algorithm.setup(policy)
    first, metrics = algorithm.loss(policy, batch)
    assert first.item() == pytest.approx(0.693147, abs=1e-6)
    assert metrics["drift"].item() == 0
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        loss, metrics = algorithm.loss(policy, batch)
        loss.backward()
        optimizer.step()
    assert loss.item() < first.item() - 0.01
    assert metrics["reward_margin"].item() > 0
    assert metrics["drift"].item() > 0
    assert algorithm.reference is not None
    assert all(p.grad is None and not p.requires_grad for p in algorithm.reference.parameters())
    initial = Wrapped(VOCAB_SIZE, 32)
    for kept, start in zip(algorithm.reference.parameters(), initial.parameters(), strict=True):
        assert torch.equal(kept, start)


def test_row_without_targets_gives_no_nan() -> None:
    batch = preference_batch()
    assert batch.targets is not None
    batch.targets[0] = -100
    for normalised in (False, True):
        loss, gradients, metrics = ours(batch, DPO(length_normalised=normalised))
        assert np.isfinite(loss)
        assert all(torch.isfinite(g).all() for g in gradients.values())
        assert all(np.isfinite(value) for value in metrics.values())


def test_real_pairs(shared_dir: Path, tmp_path: Path) -> None:
    """On real preferences the loss falls and the margin grows, on the pairs it is trained on."""
    source = shared_dir / "data" / "preference-dpo-kto" / "dpo_en_demo.json.gz"
    path = tmp_path / "pairs.jsonl"
    with path.open("w", encoding="utf-8") as stream:
        for row in json.loads(gzip.decompress(source.read_bytes()))[:8]:
            prompt = [
                {
                    "role": {"human": "user", "gpt": "assistant", "system": "system"}[turn["from"]],
                    "content": turn["value"][:40],
                }
                for turn in row["conversations"]
            ]
            answers = {side: row[side]["value"][:100] for side in ("chosen", "rejected")}
            stream.write(json.dumps({"prompt": prompt, **answers}) + "\n")
    data = PreferenceData(train=str(path), validation=str(path), seq_len=256)
    splits = data.load(lambda _: byte_tokenizer([]), tmp_path)
    policy, algorithm = Wrapped(splits.tokenizer.vocab_size, 256), DPO(beta=0.1)
    algorithm.setup(policy)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=2e-3)
    batch, losses = splits.train.batch(range(len(splits.train))), []
    assert algorithm.units(batch) == 8
    for _ in range(8):
        optimizer.zero_grad()
        loss, metrics = algorithm.loss(policy, batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    assert metrics["reward_accuracy"].item() >= 0.75
