"""task=export, and what others and we ourselves do with what it left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers

from llm.checkpoints.pretrained import load
from llm.runs.directory import read
from llm.types import Batch
from tests.conftest import Main

TINY = (
    "task=pretrain", "data=text", "data.path=text.txt", "data.seq_len=32", "tokenizer.vocab_size=300",
    "tracker=none", "model.d_model=16", "model.n_layers=2", "model.n_heads=2", "trainer.max_steps=3",
    "trainer.batch_size=2", "trainer.eval_every_steps=3", "trainer.eval_batches=1",
)  # fmt: skip
LINE = "To be, or not to be, that is the question.\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained LLaMA, and what was exported of it."""
    home = tmp_path_factory.mktemp("export")
    (home / "text.txt").write_text(LINE * 40)
    main = Main(home)
    for arguments in (
        (*TINY, "run_dir=run"),
        ("task=export", "checkpoint=run", "output=out", "run_dir=exported", "tracker=none"),
    ):
        done = main(*arguments)
        assert done.code == 0, done.err
    return home


def test_transformers_reads_the_model_and_its_tokenizer(home: Path) -> None:
    theirs = transformers.AutoModelForCausalLM.from_pretrained(home / "out")
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(home / "out")
    ours, tokenizer, _ = load(home / "run")
    ids = tokenizer.encode(LINE)
    assert their_tokenizer(LINE, add_special_tokens=False).input_ids == ids
    with torch.no_grad():
        tokens = torch.tensor([ids])
        torch.testing.assert_close(theirs(tokens).logits, ours(Batch(tokens)), rtol=0, atol=1e-5)


def test_the_sizes_are_said_and_the_ends_are_ours(home: Path) -> None:
    config = json.loads((home / "out" / "config.json").read_text())
    _, tokenizer, _ = load(home / "run")
    assert config["intermediate_size"] == 64
    assert (config["head_dim"], config["num_key_value_heads"]) == (8, 2)
    assert (config["bos_token_id"], config["eos_token_id"]) == (None, tokenizer.eos_id)


def test_it_comes_back_as_it_went(home: Path) -> None:
    (ours, tokenizer, _), (back, its_tokenizer, info) = load(home / "run"), load(home / "out")
    tokens = torch.tensor([tokenizer.encode(LINE)])
    assert its_tokenizer.encode(LINE) == tokens[0].tolist()
    assert its_tokenizer.vocab_size == tokenizer.vocab_size
    assert info["step"] == 0
    with torch.no_grad():
        assert torch.equal(ours(Batch(tokens)), back(Batch(tokens)))


def test_the_record_says_what_was_written(home: Path) -> None:
    metrics = read(home / "exported").result["metrics"]
    assert metrics["architecture"] == "LlamaForCausalLM"
    assert metrics["output"] == str(home / "out")


def test_every_task_starts_from_it(home: Path) -> None:
    main = Main(home)
    write = (
        "task=generate",
        "prompt=To be",
        "generation=greedy",
        "generation.max_new_tokens=8",
        "tracker=none",
    )
    texts = {main(*write, choice).out for choice in ("checkpoint=run", "checkpoint=out")}
    texts.add(main(*write, "model=pretrained", "model.path=out").out)
    assert len(texts) == 1
    done = main(*TINY[:4], *TINY[5:6], *TINY[9:], "model=pretrained", "model.path=out", "run_dir=further")
    assert done.code == 0, done.err
    first, then = (read(home / name).result["metrics"] for name in ("run", "further"))
    # The same model on the same part of the text, read from another file.
    assert then["val_loss_before"] == pytest.approx(first["val_loss"], abs=1e-6)
    done = main("task=evaluate", "checkpoint=out", "data=text", "data.path=text.txt", "data.seq_len=32",
                "tracker=none", "sample_tokens=0")  # fmt: skip
    assert done.code == 0, done.err


def test_a_run_merges_with_its_own_export(home: Path) -> None:
    done = Main(home)("task=merge", "models=[run,out]", "run_dir=merged", "tracker=none")
    assert done.code == 0, done.err
    (ours, tokenizer, _), (mean, _, _) = load(home / "run"), load(home / "merged")
    tokens = torch.tensor([tokenizer.encode(LINE)])
    with torch.no_grad():
        torch.testing.assert_close(mean(Batch(tokens)), ours(Batch(tokens)))


def test_another_number_format(home: Path) -> None:
    done = Main(home)("task=export", "checkpoint=out", "output=half", "dtype=bfloat16", "tracker=none")
    assert done.code == 0, done.err
    assert json.loads((home / "half" / "config.json").read_text())["dtype"] == "bfloat16"
    model = transformers.AutoModelForCausalLM.from_pretrained(home / "half", dtype="auto")
    assert model.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("checkpoint=run", "output=out"), "error: output=out: is there already"),
        (("output=new",), "error: checkpoint=???: which model? give the folder of a run"),
        (
            ("checkpoint=run", "model=pretrained", "model.path=out", "output=new"),
            "model=pretrained is given too",
        ),
        (("checkpoint=no.gguf", "output=new"), "error: checkpoint=no.gguf: no such file"),
        (("checkpoint=text.txt", "output=new"), "error: checkpoint=text.txt: is a file that is no model"),
        (("checkpoint=run", "output=new", "format=onnx"), "error: format=onnx"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(home: Path, arguments: tuple[str, ...], says: str) -> None:
    before = {path for path in home.iterdir() if path.name != "runs"}
    done = Main(home)("task=export", "tracker=none", *arguments)
    assert done.code == 2
    assert says in done.err
    assert done.err.count("\n") == 1
    assert {path for path in home.iterdir() if path.name != "runs"} == before


def test_parts_that_nobody_else_has(home: Path) -> None:
    main = Main(home)
    done = main(*TINY, "model/position=alibi", "run_dir=odd")
    assert done.code == 0, done.err
    done = main("task=export", "checkpoint=odd", "output=new", "tracker=none")
    assert done.code == 2
    assert "no architecture of transformers has these parts; llama is nearest" in done.err
    assert not (home / "new").exists()
