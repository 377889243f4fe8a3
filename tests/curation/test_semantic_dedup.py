"""Documents whose vectors nearly agree: which go, which stays, and that shards do not matter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from llm.curation import semantic_dedup
from llm.curation.base import judge
from llm.curation.embedders import HashedGrams, Transformer
from llm.curation.jsonl import JsonLines
from llm.curation.kmeans import assign, k_means, quantised
from llm.curation.pipeline import Curation
from llm.curation.semantic_dedup import SemanticDedup
from llm.types import ConfigError
from tests.curation.corpora import documents, judge_in_shards


class Spelled:
    """A text is its vector, written out."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([[float(number) for number in text.split()] for text in texts], np.float32)


def spelled(vectors: np.ndarray) -> list[str]:
    return [" ".join(f"{number:.6f}" for number in vector) for vector in vectors]


def bundles(seed: int, n: int = 90, n_dims: int = 24) -> np.ndarray:
    """Directions in bundles of different tightness: whole numbers up to 127, so that 8 bits hold them."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(12, n_dims))
    loose = centres[rng.integers(12, size=n)] + rng.uniform(0.01, 0.4, (n, 1)) * rng.normal(size=(n, n_dims))
    return eight_bits(loose)


def eight_bits(vectors: np.ndarray) -> np.ndarray:
    return np.round(vectors / np.abs(vectors).max(1, keepdims=True) * 127)


@pytest.mark.parametrize("keep", ["furthest", "nearest", "first"])
def test_one_cluster_against_all_pairs(keep: str, tmp_path):
    vectors = bundles(0)
    texts = spelled(vectors)
    step = SemanticDedup(Spelled(), threshold=0.95, n_clusters=1, keep=keep)
    judged = judge(step, documents(texts))
    # the paper's rule: in the order of the distance to the centroid, whatever resembles an earlier one goes
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    towards = unit @ eight_bits(unit.mean(0, keepdims=True))[0]
    place = {"furthest": towards, "nearest": -towards, "first": np.arange(len(unit))}[keep]
    largest = np.where(place[None, :] < place[:, None], unit @ unit.T, -1).max(1)
    gone = largest >= 0.95
    assert 10 < gone.sum() < 80
    assert judged["keep"].to_list() == list(~gone)
    assert judged["score"].to_list() == [pytest.approx(x) if x >= 0.95 else None for x in largest]
    assert set(judged["reason"].drop_nulls()) == {"semantic_duplicate"}
    assert set(judged["match"].drop_nulls()) <= set(judged.filter("keep")["id"]), "what stays is named"
    for number, sizes in enumerate(([30], [1, 0, 44])):
        assert judge_in_shards(step, documents(texts), sizes, tmp_path / str(number)).equals(judged)


def test_clusters_and_small_memory_give_the_same(tmp_path, monkeypatch):
    vectors = bundles(1)
    step = SemanticDedup(Spelled(), threshold=0.97, n_clusters=6)
    whole = judge_in_shards(step, documents(spelled(vectors)), [], tmp_path / "one")
    assert judge_in_shards(step, documents(spelled(vectors)), [7, 31], tmp_path / "many").equals(whole)
    monkeypatch.setattr(semantic_dedup, "AT_ONCE_BYTES", 24 * 20)
    # k-means sees 20 of 90, clusters are cut into pieces of 5: fewer are found, none wrongly
    less = judge_in_shards(step, documents(spelled(vectors)), [7, 31], tmp_path / "little")
    assert 0 < (~less["keep"]).sum() <= (~whole["keep"]).sum()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for row, score in enumerate(less["score"]):
        if score is not None:
            assert score >= 0.97
            assert np.abs(unit @ unit[row] - score).min() < 1e-6


def test_k_means_finds_separate_bundles():
    rng = np.random.default_rng(3)
    centres = np.eye(8)[:4] * 5
    truth = np.repeat(np.arange(4), 25)
    vectors = quantised((centres[truth] + 0.1 * rng.normal(size=(100, 8))).astype(np.float32))
    best = None
    for seed in range(5):
        found = assign(vectors, k_means(vectors, 4, 20, np.random.default_rng(seed)))
        groups = {tuple(np.flatnonzero(found == cluster)) for cluster in set(found)}
        best = max(best or 0, len(groups & {tuple(np.flatnonzero(truth == i)) for i in range(4)}))
    assert best == 4
    # a round moves each centroid to the mean direction of its members
    one = k_means(vectors, 1, 5, np.random.default_rng(0))[0].astype(float)
    unit = vectors / np.linalg.norm(vectors.astype(float), axis=1, keepdims=True)
    assert one @ unit.mean(0) / np.linalg.norm(one) / np.linalg.norm(unit.mean(0)) > 0.9999


def test_vectors_of_nothing():
    assert quantised(np.array([[0, 0], [1, -2], [np.nan, np.inf]], np.float32)).tolist() == [
        [0, 0],
        [64, -127],
        [0, 0],
    ]
    texts = ["0 0", "0 0", "", "nan 0", "1 0", "2 0"]
    judged = judge(SemanticDedup(Spelled()), documents(texts))
    assert judged["keep"].to_list() == [True] * 5 + [False]
    spared = judge(SemanticDedup(Spelled(), except_domains=["code"]), documents(texts, ["code"] * 6))
    assert spared["keep"].all()
    assert judge(SemanticDedup(Spelled()), documents([])).height == 0


def test_hashed_grams_know_edited_copies():
    prose = [
        "The members of the committee have agreed that the plan is to be carried out with care and in time.",
        "Whales are mammals of the open sea; they breathe air, and nurse their young with milk for months.",
        "Всеобщая декларация прав человека принята Генеральной Ассамблеей в тысяча девятьсот сорок восьмом.",
        "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。",
    ]
    edited = [text.replace(",", " --").replace("plan", "plot").replace("milk", "silk") for text in prose]
    vectors = HashedGrams().embed([*prose, *edited, ""])
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    cosine = unit @ unit.T
    assert (np.diag(cosine[:4, 4:8]) > 0.7).all()
    assert (cosine[:4, :4] - np.eye(4) < 0.3).all()
    assert not vectors[8].any()
    assert np.array_equal(HashedGrams().embed(["A, b!"]), HashedGrams().embed(["a b"]))
    exact = HashedGrams(n_dims=4096, n_bytes=3).embed(["abcabc", "abc"])
    # grams abc (twice), bca, cab; and abc alone: damped counts are the only numbers there can be
    assert sorted(np.abs(exact[0][exact[0] != 0])) == [1024, 1024, np.rint(1024 * (1 + np.log(2)))]
    assert np.flatnonzero(exact[1]).tolist() == [int(np.abs(exact[0]).argmax())]


def test_transformer_is_the_mean_of_hidden_states(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tokenizer = transformers.BertTokenizer(str(tmp_path / "vocab.txt"))
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    torch.manual_seed(0)
    model = transformers.BertModel(config).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    texts = ["a b c", "h", "a b c d e f g h a b c d", ""]
    found = Transformer(str(tmp_path), max_tokens=8, batch_size=3).embed(texts)
    for text, vector in zip(texts, found, strict=True):
        ids = tokenizer(text, truncation=True, max_length=8, return_tensors="pt")
        with torch.no_grad():
            alone = model(**ids).last_hidden_state[0].mean(0)
        assert vector == pytest.approx(alone.numpy(), abs=1e-5)


def test_other_weights_at_the_same_path_are_another_step(tmp_path):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"one")
    (tmp_path / "a.jsonl").write_text("{}")
    step = SemanticDedup(Transformer(str(tmp_path)))
    curation = Curation({"a": JsonLines(str(tmp_path / "a.jsonl"))}, {"semantic_dedup": step})
    before = curation.fingerprint(), curation.marks()["semantic_dedup"]
    assert (curation.fingerprint(), curation.marks()["semantic_dedup"]) == before
    weights.write_bytes(b"other")
    after = curation.fingerprint(), curation.marks()["semantic_dedup"]
    assert after[0] != before[0]
    assert after[1] != before[1]
    assert SemanticDedup(HashedGrams()).fingerprint() == ""


def test_transformer_without_a_model(tmp_path):
    step = SemanticDedup(Transformer(str(tmp_path / "none")))
    with pytest.raises(ConfigError, match="no such folder"):
        step.prepare(print)
    with pytest.raises(ConfigError, match="cannot be loaded") as caught:
        Transformer(str(tmp_path)).embed(["a"])
    assert caught.value.key == "path"
