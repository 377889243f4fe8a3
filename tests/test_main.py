"""Mistakes a user can make, through the entry point: exit code 2 and one line with path, value and mend."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import pytest

from tests.conftest import Main

TINY = (
    "task=pretrain",
    "data=text",
    "data.seq_len=16",
    "tokenizer=byte",
    "tracker=none",
    "model.d_model=16",
    "model.n_layers=1",
    "model.n_heads=2",
    "trainer.max_steps=2",
    "trainer.batch_size=2",
    "trainer.eval_every_steps=2",
)


@pytest.fixture(scope="module")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("To be, or not to be, that is the question.\n" * 40)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, text_file: Path) -> Path:
    """A run directory of a tiny pretraining, made once."""
    home = tmp_path_factory.mktemp("trained")
    done = Main(home)(*TINY, f"data.path={text_file}", f"run_dir={home / 'run'}")
    assert done.code == 0, done.err
    return home / "run"


def assert_mistake(done: Main.Done, *parts: str) -> None:
    lines = [line for line in done.err.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    assert done.code == 2, done.err
    assert len(errors) == 1, done.err
    assert "Traceback" not in done.err
    for part in parts:
        assert part in errors[0], errors[0]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["model.n_layer=3"], ["model.n_layer=3", "did you mean model.n_layers?"]),
        (["model=gtp2"], ["model=gtp2", "did you mean gpt2?"]),
        (["trainer.max_steps=many"], ["trainer.max_steps=many", "integer"]),
        (["trainer.max_steps=1.5"], ["trainer.max_steps=1.5", "integer"]),
        (["optimizer.lr=-0.1"], ["optimizer.lr=-0.1", "greater than 0"]),
        (
            ["model.n_heads=5", "model.d_model=128"],
            ["model.n_heads=5", "d_model=128 is not divisible", "4, 8"],
        ),
        (["optimizer.lr=inf"], ["optimizer.lr=inf", "finite"]),
        (["trainer.max_steps=\uff19"], ["trainer.max_steps=\uff19", "integer"]),
        (["data.seq_len=5000"], ["data.seq_len=5000", "at most 1547"]),
        (["max_steps"], ["max_steps: is not an override; write key=value"]),
        (["model.=1"], ["model.=1: is not an override; write key=value"]),
        (["+model.typo=1"], ["model.typo=1", "no such key"]),
        (["model.n_layers=1,2"], ["model.n_layers=1,2", "-m"]),
        (["data.path=/nowhere/at/all.txt"], ["data.path=/nowhere/at/all.txt", "no such file"]),
        (["parallelism=ddp", "parallelism.replicas=3"], ["parallelism.replicas=3"]),
        (["trainer.batch_size=3", "trainer.grad_accum_steps=2"], ["trainer.batch_size=3"]),
        (["seed=x"], ["seed=x", "int"]),
        (["resume=/nowhere"], ["resume=/nowhere"]),
        (["reproduce=/nowhere"], ["reproduce=/nowhere"]),
    ],
)
def test_a_wrong_value(main: Main, text_file: Path, arguments: list[str], parts: list[str]) -> None:
    assert_mistake(main(*TINY, f"data.path={text_file}", *arguments), *parts)


def test_several_mistakes_are_all_named(main: Main, text_file: Path) -> None:
    done = main(*TINY, f"data.path={text_file}", "optimizer.lr=-1", "trainer.max_steps=0")
    assert done.code == 2
    assert len([line for line in done.err.splitlines() if line.startswith("error: ")]) == 2


def test_a_missing_value(main: Main) -> None:
    assert_mistake(main(*TINY), "data.path=None", "data.path=FILE")


@pytest.mark.parametrize(
    ("content", "part"), [(b"", "empty"), (b"abc\x00def", "text"), (b"caf\xe9 \xff\xfe" * 9, "text")]
)
def test_a_file_that_is_not_text(main: Main, tmp_path: Path, content: bytes, part: str) -> None:
    path = tmp_path / "data.txt"
    path.write_bytes(content)
    assert_mistake(main(*TINY, f"data.path={path}"), f"data.path={path}", part)


def test_a_corrupt_parquet(main: Main, tmp_path: Path) -> None:
    path = tmp_path / "documents.parquet"
    path.write_bytes(b"PAR1 this is not a parquet file PAR1")
    done = main("task=tokenize", "tokenizer=byte", "tracker=none", f"train={path}", f"validation={path}")
    assert_mistake(done, str(path))


def test_a_directory_that_is_no_checkpoint(main: Main, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = main("task=generate", "tracker=none", f"checkpoint={tmp_path / 'empty'}", "prompt=a")
    assert_mistake(done, f"checkpoint={tmp_path / 'empty'}")


def test_a_torn_checkpoint(main: Main, trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy, symlinks=True)
    for weights in copy.glob("checkpoints/step_*/model.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-7])
    assert_mistake(main("task=generate", "tracker=none", f"checkpoint={copy}", "prompt=a"), str(copy))


def test_a_checkpoint_of_another_architecture(
    main: Main, trained: Path, text_file: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy, symlinks=True)
    done = main(f"resume={copy}", "model.d_model=32", "trainer.max_steps=4", "tracker=none")
    assert_mistake(done, str(copy))


def test_a_saved_config_that_would_run_a_shell(main: Main, trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy, symlinks=True)
    text = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(
        text.replace("_target_: llm.training.trainer.Trainer", "_target_: os.system\n  command: touch OWNED")
    )
    done = main(f"reproduce={copy}", "allow_drift=true", "tracker=none")
    assert done.code == 2
    assert "trainer._target_=os.system" in done.err
    assert not (main.home / "OWNED").exists()


def test_a_checkpoint_whose_model_would_run_a_shell(main: Main, trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy, symlinks=True)
    for path in copy.glob("checkpoints/step_*/model.json"):
        path.write_text(path.read_text().replace("llm.models.decoder.Decoder", "os.system"))
    done = main("task=generate", "tracker=none", f"checkpoint={copy}", "prompt=a")
    assert done.code == 2, done.err


def test_a_directory_that_holds_another_run(main: Main, trained: Path, text_file: Path) -> None:
    before = {p: p.read_bytes() for p in trained.rglob("*") if p.is_file()}
    done = main(*TINY, f"data.path={text_file}", f"run_dir={trained}")
    assert_mistake(done, f"run_dir={trained}", "already holds a run")
    assert {p: p.read_bytes() for p in trained.rglob("*") if p.is_file()} == before


def test_a_port_in_use(main: Main, trained: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = main("task=serve", "tracker=none", f"checkpoint={trained}", f"serving.port={port}")
    assert_mistake(done, f"serving.port={port}", "in use")


def test_single_under_torchrun(main: Main, text_file: Path) -> None:
    done = main.torchrun(2, *TINY, f"data.path={text_file}", "parallelism=single")
    assert done.code != 0
    assert "error: parallelism=single: uses one process, torchrun started 2" in done.err
    assert "exitcode  : 2" in done.err  # torchrun's own summary of what the workers returned


def test_a_prompt_with_every_awkward_character_simply_works(main: Main, trained: Path) -> None:
    prompt = "(a), \"'b=${s}"
    done = main("task=generate", "tracker=none", f"checkpoint={trained}", f"prompt={prompt}",
                "generation.max_new_tokens=3")  # fmt: skip
    assert done.code == 0, done.err


def test_the_record_of_a_run(trained: Path) -> None:
    result = json.loads((trained / "result.json").read_text())
    assert result["status"] == "done"
    assert result["metrics"]["val_loss"] > 0
    assert len(result["weights_sha256"]) == 64
    assert result["n_params"] > 0
    for name in (
        "config.yaml",
        ".hydra/config.yaml",
        "provenance.json",
        "metrics.jsonl",
        "done.json",
        "report.html",
    ):
        assert (trained / name).is_file(), name
    steps = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert {
        "stage",
        "step",
        "seconds",
        "tokens",
        "loss",
        "lr",
        "grad_norm",
        "tokens_per_second",
        "memory_bytes",
    } <= {key for line in steps for key in line}


def test_reproducing_a_run_is_bitwise_equal(main: Main, trained: Path) -> None:
    done = main(f"reproduce={trained}", "tracker=none", "allow_drift=true")
    assert done.code == 0, done.err
    assert "reproduced: " in done.err


def test_a_run_that_comes_out_otherwise_exits_3(main: Main, trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy, symlinks=True)
    lines = (copy / "metrics.jsonl").read_text().splitlines()
    changed = [json.loads(line) for line in lines]
    for record in changed:
        if record.get("step") == 2 and "loss" in record:
            record["loss"] += 1e-9
    (copy / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in changed))
    done = main(f"reproduce={copy}", "tracker=none", "allow_drift=true")
    assert done.code == 3, done.err
    assert "step 2" in done.err


def test_drift_of_code_is_refused_until_allowed(main: Main, trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy, symlinks=True)
    provenance = json.loads((copy / "provenance.json").read_text())
    provenance["git"]["commit"] = "0" * 40
    (copy / "provenance.json").write_text(json.dumps(provenance))
    done = main(f"reproduce={copy}", "tracker=none")
    assert_mistake(done, f"reproduce={copy}", "allow_drift=true")
    assert "commit" in done.err
