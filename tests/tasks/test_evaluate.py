"""task=evaluate from a checkpoint to evaluation.json, alone and against other models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from llm.checkpoints.local import LocalCheckpoints
from llm.config import CONF
from llm.evaluation.multiple_choice import MultipleChoice
from llm.evaluation.preference_margin import PreferenceMargin
from llm.evaluation.scorer import Scorer
from llm.runs.run import Run
from llm.tasks.evaluate import evaluate
from llm.tokenizers.byte import train as byte_tokenizer
from llm.types import ConfigError
from tests.evaluation.conftest import compose_decoder
from tests.evaluation.contract import rows_file

TEXT = "All work and no play makes Jack a dull boy. " * 30


def trained(folder: Path, scale: float = 1.0, **config: Any) -> Path:
    """A run's folder with a checkpoint; `scale` makes models differ."""
    tokenizer = byte_tokenizer([])
    model = compose_decoder(tokenizer.vocab_size)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    parts = {"attention": "multi_head", "feed_forward": "swiglu", "position": "rotary"}
    node = {
        "_target_": "llm.models.decoder.Decoder",
        "_partial_": True,
        "d_model": 32,
        "n_layers": 2,
        "n_heads": 4,
        "norm": {"_target_": "llm.models.norms.RMSNorm", "_partial_": True},
        **{
            group: OmegaConf.to_container(OmegaConf.load(CONF / "model" / group / f"{name}.yaml"))
            for group, name in parts.items()
        },
    }
    LocalCheckpoints().save(
        folder / "checkpoints",
        step=7,
        model=model.state_dict(),
        optimizer={},
        state={},
        description={"config": node, "vocab_size": tokenizer.vocab_size, "max_seq_len": 64, "info": {}},
        tokenizer=tokenizer,
    )
    if config:
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run", seed=1)


def text_data(folder: Path) -> dict[str, Any]:
    (folder / "text.txt").write_text(TEXT)
    return {"_target_": "llm.data.text.TextData", "path": str(folder / "text.txt"), "seq_len": 32}


def test_exams_metrics_tables_samples(tmp_path: Path, run: Run) -> None:
    path = str(rows_file(tmp_path))
    exams = {"margin": PreferenceMargin(path), "choice": MultipleChoice(path)}
    objective = evaluate(run=run, checkpoint=str(trained(tmp_path / "a")), evaluation=exams, sample_tokens=4)
    record = json.loads((run.directory / "evaluation.json").read_text())
    assert objective == record["models"]["model"]["exams"]["margin"]["metrics"]["margin"]
    assert record["models"]["model"]["step"] == 7
    assert record["differences"] == {}
    assert run.summary["margin/margin"] == objective
    assert run.summary["choice/chance"] == 0.25
    table = json.loads((run.directory / "tables" / "choice.json").read_text())
    assert table["columns"][0] == "id"
    assert len(table["rows"]) == 5
    [sample] = record["samples"]  # five rows, one and the same prompt
    assert sample["prompt"] == "user: What does add do?"
    [line] = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
    assert line["step"] == 7
    assert line["choice/accuracy_per_byte"] == run.summary["choice/accuracy_per_byte"]


def test_compare_gives_paired_differences_to_the_first(tmp_path: Path, run: Run) -> None:
    path = str(rows_file(tmp_path))
    sft, dpo = trained(tmp_path / "sft"), trained(tmp_path / "dpo", scale=0.7)
    evaluate(
        run=run,
        checkpoint=str(dpo),
        evaluation={"margin": PreferenceMargin(path)},
        compare={"sft": str(sft), "dpo": str(dpo / "checkpoints" / "last")},
        sample_tokens=0,
    )
    record = json.loads((run.directory / "evaluation.json").read_text())
    assert list(record["models"]) == ["dpo", "sft"], "the same checkpoint is not examined twice"
    [difference] = record["differences"]["margin"]
    means = {name: model["exams"]["margin"]["metrics"]["margin"] for name, model in record["models"].items()}
    assert (difference["first"], difference["second"], difference["score"]) == ("sft", "dpo", "margin")
    assert difference["estimate"] == pytest.approx(means["dpo"] - means["sft"])
    assert difference["low"] <= difference["estimate"] <= difference["high"]
    assert run.summary["margin/dpo_minus_sft"] == difference["estimate"]
    assert record["samples"] == []


def test_without_exams_the_run_itself_says_what_to_measure(tmp_path: Path) -> None:
    """`task=evaluate checkpoint=RUN_DIR`: validation loss on what the run was trained on."""
    data = text_data(tmp_path)
    checkpoint = trained(
        tmp_path / "a", _target_="llm.tasks.pretrain.pretrain", data=data, trainer={"max_steps": 7}
    )
    loss = evaluate(run=Run(tmp_path / "own"), checkpoint=str(checkpoint), sample_tokens=2)
    from llm.data.text import TextData

    chosen = TextData(path=data["path"], seq_len=32)
    assert loss == evaluate(
        run=Run(tmp_path / "given"), checkpoint=str(checkpoint), data=chosen, sample_tokens=0
    )
    assert (tmp_path / "own" / "tables" / "validation_loss.json").is_file()


def test_without_exams_a_lifecycle_gives_its_own(tmp_path: Path, run: Run) -> None:
    curated = tmp_path / "artifacts" / "curate" / "abc"
    curated.mkdir(parents=True)
    rows_file(curated)
    stages = {
        "curate": {"_target_": "llm.tasks.curate.curate"},
        "pretrain": {"data": text_data(tmp_path), "trainer": {"max_steps": 1}},
        "evaluate": {
            "evaluation": {
                "multiple_choice": {
                    "_target_": "llm.evaluation.multiple_choice.MultipleChoice",
                    "path": "artifact://curate/rows.jsonl",
                }
            }
        },
    }
    checkpoint = trained(tmp_path / "a", _target_="llm.tasks.lifecycle.lifecycle", stages=stages)
    (checkpoint / "result.json").write_text(json.dumps({"stages": {"curate": {"directory": str(curated)}}}))
    evaluate(run=run, checkpoint=str(checkpoint), sample_tokens=0)
    assert run.summary["multiple_choice/n_examples"] == 5


def test_an_exam_of_an_untrusted_config_is_not_built(tmp_path: Path, run: Run) -> None:
    checkpoint = trained(tmp_path / "a", data={"_target_": "os.system", "command": "false"}, trainer={"a": 1})
    with pytest.raises(ConfigError, match=r"os\.system"):
        evaluate(run=run, checkpoint=str(checkpoint))


def test_mistakes(tmp_path: Path, run: Run) -> None:
    path = str(rows_file(tmp_path))
    checkpoint = str(trained(tmp_path / "a"))
    exams = {"margin": PreferenceMargin(path)}
    for key, arguments in {
        "checkpoint": {"checkpoint": str(tmp_path / "none"), "evaluation": exams},
        "compare.b": {
            "checkpoint": checkpoint,
            "evaluation": exams,
            "compare": {"b": str(tmp_path / "none")},
        },
    }.items():
        with pytest.raises(ConfigError) as error:
            evaluate(run=run, **arguments)  # type: ignore[arg-type]
        assert error.value.key == key
    with pytest.raises(ConfigError, match="lies in no run") as error:
        evaluate(run=run, checkpoint=checkpoint)
    assert error.value.key == "checkpoint"
    from llm.data.text import TextData

    text_data(tmp_path)
    data = TextData(path=str(tmp_path / "text.txt"), seq_len=65)
    with pytest.raises(ConfigError, match="context is 64") as error:
        evaluate(run=run, checkpoint=checkpoint, data=data)
    assert error.value.key == "evaluation.validation_loss.data.seq_len"
    with pytest.raises(ConfigError, match="example by example") as error:
        evaluate(run=run, checkpoint=checkpoint, data=data, compare={"b": checkpoint})
    assert error.value.key == "compare"


def test_on_the_command_line(tmp_path: Path, main: Any) -> None:
    path = rows_file(tmp_path)
    checkpoint = trained(tmp_path / "a")
    done = main(
        "task=evaluate",
        f"checkpoint={checkpoint}",
        "evaluation=[multiple_choice]",
        f"evaluation.multiple_choice.path={path}",
        "tracker=none",
        "sample_tokens=0",
        f"run_dir={tmp_path / 'out'}",
    )
    assert done.code == 0, done.err
    assert "multiple_choice: accuracy per byte" in done.err
    assert (tmp_path / "out" / "evaluation.json").is_file()
    done = main("task=evaluate", f"checkpoint={checkpoint}", "evaluation=[multiple_choice]", "tracker=none")
    assert done.code == 2
    assert "evaluation.multiple_choice.path" in done.err


def test_scorer_keeps_prepared_data_in_its_cache(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer([])
    scorer = Scorer(compose_decoder(tokenizer.vocab_size), tokenizer, cache=tmp_path / "kept")
    assert scorer.cache == tmp_path / "kept"
    assert Scorer(scorer.model, tokenizer).cache.is_dir()
