"""task=merge: two fine-tuned models become one that every other task takes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from llm.checkpoints.local import load, load_model
from llm.checkpoints.manifest import weights_sha256
from llm.runs.directory import read
from llm.tokenizers import character
from tests.checkpoints.saved import save
from tests.conftest import Main

TEXT = "To be, or not to be, that is the question.\n" * 40


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models of one kind and others that differ from them in one thing each."""
    home = tmp_path_factory.mktemp("merge")
    (home / "text.txt").write_text(TEXT)
    save(home / "one")
    save(home / "two", 2, dropout=0.1)
    save(home / "three", 3)
    save(home / "wide", d_model=24)
    save(home / "heads", n_heads=2)
    save(home / "long", max_seq_len=24)
    save(home / "letters", tokenizer=character.train([TEXT]))
    save(home / "letterz", tokenizer=character.train([TEXT.replace("q", "z")]))
    return home


def merge(home: Path, models: str, *more: str) -> Main.Done:
    return Main(home)("task=merge", "tracker=none", f"models=[{models}]", *more)


def test_the_merged_model_is_a_checkpoint_that_names_its_parents(home: Path) -> None:
    done = merge(home, "one,two", "merging.weights=[1,3]", "run_dir=soup")
    assert done.code == 0, done.err
    soup, one, two = (load(home / name) for name in ("soup", "one", "two"))
    for name, tensor in soup.model.items():
        expected = 0.25 * one.model[name].double() + 0.75 * two.model[name].double()
        torch.testing.assert_close(tensor.double(), expected, rtol=0, atol=1e-6)
    lineage = soup.description["info"]["merged"]
    assert lineage["method"] == "Linear"
    assert lineage["settings"] == {"weights": [1, 3], "normalise": True}
    digests = [weights_sha256(parent.model) for parent in (one, two)]
    assert [parent["weights_sha256"] for parent in lineage["parents"]] == digests
    assert [Path(parent["path"]).parent.parent.name for parent in lineage["parents"]] == ["one", "two"]
    record = read(home / "soup")
    assert record.result["status"] == "done"
    assert record.result["n_params"] == sum(tensor.numel() for tensor in one.model.values())
    assert soup.description["info"]["chat"] is True  # as one of them
    assert set(digests) <= set(record.provenance["data"].values())
    table = json.loads((home / "soup" / "tables" / "parents.json").read_text())
    assert table["rows"][1][2] < table["rows"][0][2]  # three quarters of the way there


def test_every_task_takes_it(home: Path) -> None:
    assert merge(home, "one,three", "merging=slerp", "merging.t=0.3", "run_dir=arc").code == 0
    model, _, info = load_model(home / "arc")
    assert info["step"] == 0
    assert model.max_seq_len == 16
    main = Main(home)
    done = main("task=generate", "tracker=none", "checkpoint=arc", "prompt=To", "generation.max_new_tokens=3")
    assert done.code == 0, done.err
    done = main("task=evaluate", "tracker=none", "checkpoint=arc", "data=text", "data.path=text.txt",
                "data.seq_len=16", "sample_tokens=0", "run_dir=examined")  # fmt: skip
    assert done.code == 0, done.err
    done = main("task=evaluate", "tracker=none", "checkpoint=arc")
    assert done.code == 2
    assert "choose data=NAME" in done.err


def test_the_same_merge_again_is_the_same(home: Path) -> None:
    assert (
        merge(home, "two,three", "merging=ties", "base=one", "merging.density=0.5", "run_dir=ties").code == 0
    )
    done = Main(home)("reproduce=ties")
    assert done.code == 0, done.err
    assert "not reproduced" not in done.err


@pytest.mark.parametrize(
    ("models", "more", "words"),
    [
        ("one,wide", (), "models=wide: is of another architecture: embedding.weight has shape [259, 24], in"),
        ("one,heads", (), "models=heads: is of another architecture: its model.head_dim is 8, the"),
        ("one,long", (), "models=long: is of another architecture: its model.max_seq_len is 24"),
        ("one", (), "models=1: this method merges at least 2"),
        ("one,two,three", ("merging=slerp",), "models=3: this method merges exactly 2"),
        ("one,nowhere", (), "models=nowhere: no such directory"),
        ("one,two", ("merging=ties",), "base=None: this method adds up differences"),
        ("one,two", ("merging=ties", "base=wide"), "base=wide: is of another architecture"),
        ("one,two", ("merging.weights=[1]",), "merging.weights=[1]: there are 2 models"),
        ("one,two", ("merging.weights=[1,-1]",), "merging.weights=[1, -1]: sum to zero"),
        ("one,two", ("merging=slerp", "merging.t=1.5"), "merging.t=1.5: "),
    ],
)  # fmt: skip
def test_mistakes(home: Path, models: str, more: tuple[str, ...], words: str) -> None:
    done = merge(home, models, *more)
    assert done.code == 2
    assert f"error: {words}" in done.err


def test_another_tokenizer_is_another_language(home: Path) -> None:
    """Of the same size, so that the weights would fit."""
    done = merge(home, "letters,letterz")
    assert done.code == 2
    assert "error: models=letterz: its tokenizer is not that of letters" in done.err


def test_a_torn_model_is_a_mistake(home: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(home / "two", tmp_path / "copy", symlinks=True))
    for weights in copy.glob("checkpoints/step_*/model.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-7])
    done = merge(home, f"one,{copy}")
    assert done.code == 2
    assert f"error: models={copy}: every checkpoint in it is torn" in done.err
