"""Every config file keeps its promises, and a stranger's component keeps them with nothing else touched.

A new component is one python file and one yaml file. Here each kind is written into a folder of its own,
outside the repository, and run by the command line as a user would; then it passes the very checks that the
components of this repository pass.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import polars as pl
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from llm import config
from llm.checking import check
from llm.config import CONF, build, compose, mistakes_in
from llm.parallelism.base import Engine
from llm.parallelism.precision import Precision
from llm.parallelism.single import Single
from llm.types import Batch
from tests.alignment import test_contract as alignment_contract
from tests.alignment.contract import check_algorithm
from tests.conftest import REPOSITORY, Main
from tests.curation import test_steps as step_contract
from tests.evaluation import test_contract as exam_contract
from tests.evaluation.contract import check_exam, rows_file
from tests.models import test_parts as part_contract
from tests.models.composition import load_part
from tests.models.contract import check_part

# ----------------------------------------------------------------------------- every yaml file


def _files() -> dict[str, Path]:
    """Every config file by ``group/option``; presets and sweeps lie beside `conf`, not in it."""
    found = {}
    for root, folder in (
        (CONF, CONF),
        (REPOSITORY, REPOSITORY / "experiments"),
        (REPOSITORY, REPOSITORY / "sweeps"),
    ):
        for path in folder.rglob("*.yaml"):
            found.setdefault(path.relative_to(root).with_suffix("").as_posix(), path)
    return dict(sorted(found.items()))


FILES = _files()
OPTIONS = [name for name in FILES if "/" in name and not name.startswith("hydra/")]

CHOSEN = {
    "alignment": "task=align alignment={}",
    "benchmark": "task=benchmark benchmark={}",
    "checkpointing": "task=pretrain checkpointing={}",
    "classifier": "task=train_classifier classifier={}",
    "curation": "task=curate curation={}",
    "curation/engine": "task=curate curation/engine={}",
    "curation/mixture": "task=curate +curation/mixture@curation.mixture={}",
    "curation/source": "task=curate curation=files curation/source@curation.sources.files={}",
    "curation/step": "task=curate +curation/step@curation.steps.new={}",
    "data": "task=pretrain data={}",
    "device": "task=plan device={}",
    "evaluation": "task=evaluate evaluation=[{}]",
    "experiments": "experiments={}",
    "generation": "task=generate generation={}",
    "merging": "task=merge merging={}",
    "model": "task=pretrain model={}",
    "model/adapter": "task=align model/adapter={}",
    "model/attention": "task=pretrain model/attention={}",
    "model/feed_forward": "task=pretrain model/feed_forward={}",
    "model/initialisation": "task=pretrain model/initialisation={}",
    "model/parametrization": "task=pretrain model/parametrization={}",
    "model/position": "task=pretrain model/position={}",
    "model/scaling": "task=pretrain +model/scaling@model.position.scaling={}",
    "optimizer": "task=pretrain optimizer={}",
    "parallelism": "task=pretrain parallelism={}",
    "precision": "task=pretrain precision={}",
    "schedule": "task=pretrain schedule={}",
    "serving": "task=serve serving={}",
    "sweeps": "sweeps={}",
    "task": "task={}",
    "tokenizer": "task=pretrain tokenizer={}",
    "tracker": "task=pretrain tracker={}",
    "trainer": "task=pretrain trainer={}",
}
"""How an option of each group is chosen on the command line."""

GIVEN = {"data/text": ["data.path=a.txt"]}
"""What an option needs that only its user knows, and that is not a plain missing value."""


def test_there_are_config_files() -> None:
    assert {
        "task/pretrain",
        "model/attention/multi_head",
        "optimizer/adamw",
        "sweeps/depth_heads_width",
    } <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_the_first_line_says_what_it_is(name: str) -> None:
    first, second, *_ = [*FILES[name].read_text(encoding="utf-8").splitlines(), "", ""]
    if first.startswith("# @package"):
        first, second = second, ""
    assert re.match(r"# \S", first), "a sentence for people to read"
    assert "@package" not in second, "Hydra takes a package only from the first line"


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield node["_target_"]
        for value in node.values():
            yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)


@pytest.mark.parametrize("name", FILES)
def test_every_target_is_there(name: str) -> None:
    for target in _targets(OmegaConf.to_container(OmegaConf.load(FILES[name]))):
        assert callable(config.find(target)), target


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_composes_into_a_task_that_fits_its_code(name: str) -> None:
    group, _, option = name.rpartition("/")
    assert group in CHOSEN, "a new group: say above how an option of it is chosen"
    composed = compose([*CHOSEN[group].format(option).split(), *GIVEN.get(name, [])])
    assert "_target_" in composed, "no task at the root: is the first line `# @package _global_`?"
    mistakes = []
    try:
        check(composed)
    except ExceptionGroup as error:
        mistakes = [str(m) for m in mistakes_in(error) if m.value != "???"]  # what only the user can give
    assert mistakes == []


# ----------------------------------------------------------------------------- optimizers and schedules


class Tiny(nn.Module):
    """Two matrices, a vector, and a parameter that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embedding = nn.Parameter(torch.randn(11, 6, generator=generator))
        self.head = nn.Parameter(torch.randn(11, 6, generator=generator))
        self.gain = nn.Parameter(torch.ones(6))
        self.frozen = nn.Parameter(torch.ones(3, 3), requires_grad=False)

    def forward(self, batch: Batch) -> Tensor:
        return (self.embedding[batch.tokens] * self.gain) @ self.head.T


def loss(policy: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    assert batch.targets is not None
    return nn.functional.cross_entropy(policy(batch).flatten(0, 1), batch.targets.flatten()), {}


def batch_of(step: int) -> Batch:
    tokens = torch.randint(11, (4, 9), generator=torch.Generator().manual_seed(step))
    return Batch(tokens[:, :-1], (3 * tokens[:, :-1] + 1) % 11)  # a rule that can be learned


def engine_of(make_optimizer: Callable[..., torch.optim.Optimizer]) -> Engine:
    return Single().prepare(
        Tiny(), make_optimizer, None, loss=loss, precision=Precision(dtype="float32"), clip_norm=None,
        units=lambda batch: batch.tokens.numel(),
    )  # fmt: skip


def snapshot(engine: Engine) -> dict[str, dict[str, Tensor]]:
    return {part: {n: t.clone() for n, t in tensors.items()} for part, tensors in engine.state().items()}


def read_component(path: Path) -> DictConfig:
    assert path.read_text(encoding="utf-8").startswith("# "), "the first line says what it is"
    node = OmegaConf.load(path)
    assert isinstance(node, DictConfig)
    check(node)
    return node


def check_optimizer(path: Path) -> None:
    """Raises when the optimizer that the yaml at `path` configures breaks a promise the trainer relies on."""
    node = read_component(path)
    assert "lr" in node, "optimizer.lr means the same whatever the optimizer"
    with pytest.raises(ExceptionGroup):
        check(OmegaConf.merge(node, {"lr": -1.0}))
    make = build(node)

    engine = engine_of(make)
    groups = engine.optimizer.param_groups
    held = [id(p) for group in groups for p in group["params"]]
    wanted = {id(p) for p in engine.model.parameters() if p.requires_grad}
    assert len(held) == len(set(held)), "a parameter stands in it twice"
    assert set(held) == wanted, "it holds the trainable parameters, all of them and nothing else"
    assert all(group["lr"] > 0 for group in groups), "a schedule multiplies each group's learning rate"

    before = snapshot(engine)["model"]
    engine.step([batch_of(0)], 0.0)
    for name, tensor in snapshot(engine)["model"].items():
        assert torch.equal(tensor, before[name]), f"{name} moves at a learning rate of zero"

    engine = engine_of(make)
    fixed = batch_of(0)
    losses = [engine.step([fixed], 1.0)["loss"] for _ in range(30)]
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0], f"the loss does not fall on a batch it is trained on: {losses}"

    whole = engine_of(make)
    for step in range(6):
        whole.step([batch_of(step)], 1.0)
    first, second = engine_of(make), engine_of(make)
    for step in range(3):
        first.step([batch_of(step)], 1.0)
    second.load_state(snapshot(first))
    for step in range(3, 6):
        second.step([batch_of(step)], 1.0)
    resumed, expected = snapshot(second), snapshot(whole)
    for part in ("model", "optimizer"):
        assert resumed[part].keys() == expected[part].keys()
        for name, tensor in expected[part].items():
            assert torch.equal(resumed[part][name], tensor), (
                f"{name} differs after a resume: something is not saved"
            )


@pytest.mark.parametrize("path", sorted((CONF / "optimizer").glob("*.yaml")), ids=lambda path: path.stem)
def test_optimizer(path: Path) -> None:
    check_optimizer(path)


@pytest.mark.parametrize("path", sorted((CONF / "schedule").glob("*.yaml")), ids=lambda path: path.stem)
def test_schedule(path: Path) -> None:
    schedule = build(read_component(path))
    for total in (1, 7, 2000):
        factors = [schedule(step, total) for step in range(total + 1)]
        assert all(isinstance(factor, float) for factor in factors)
        assert all(0 <= factor <= 1 for factor in factors), "optimizer.lr is the highest rate there is"
        assert min(factors[:-1]) > 0, "an update at a rate of zero is wasted"
    assert max(factors) > 0.99, "a long run reaches optimizer.lr"


# ----------------------------------------------------------------------------- a stranger's components

SIGNUM = '''
    """Signum: the sign of the averaged gradient (Bernstein et al. 2018)."""

    from typing import Annotated

    import torch
    from pydantic import Field


    class Signum(torch.optim.Optimizer):
        def __init__(self, params, lr, momentum):
            super().__init__(params, {"lr": lr, "momentum": momentum})

        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        average = self.state[p].setdefault("average", torch.zeros_like(p))
                        average.lerp_(p.grad, 1 - group["momentum"])
                        p.sub_(average.sign(), alpha=group["lr"])


    def signum(
        named_parameters,
        *,
        lr: Annotated[float, Field(gt=0)] = 1e-3,
        momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9,
    ):
        return Signum([p for _, p in named_parameters if p.requires_grad], lr, momentum)
'''
SIGNUM_YAML = """\
# The sign of the averaged gradient.
_target_: signum.signum
_partial_: true
lr: 3e-3
momentum: 0.9
"""

SHOUTING = '''
    """Removes documents in capital letters."""

    from typing import Annotated

    import polars as pl
    from pydantic import Field


    class Shouting:
        def __init__(self, max_share: Annotated[float, Field(ge=0, le=1)] = 0.5):
            self.max_share = max_share

        def annotate(self, documents):
            capitals = pl.col("text").str.count_matches(r"\\p{Lu}")
            share = capitals / pl.col("text").str.len_chars().clip(lower_bound=1)
            loud = share > self.max_share
            return documents.with_columns(
                (~loud).alias("keep"),
                pl.when(loud).then(pl.lit("shouting")).alias("reason"),
                share.alias("score"),
                pl.lit(None, pl.String).alias("match"),
            )
'''
SHOUTING_YAML = "# Removes documents in capital letters.\n_target_: shouting.Shouting\nmax_share: 0.5\n"

WINDOWED_YAML = "# A sliding window.\n_target_: windowed.Windowed\n_partial_: true\nwindow: 3\n"

SMALL = (
    "model.d_model=16",
    "model.n_layers=1",
    "model.n_heads=2",
    "trainer.max_steps=8",
    "trainer.batch_size=4",
    "trainer.eval_every_steps=8",
    "trainer.eval_batches=2",
    "schedule.warmup_steps=0",
    "tracker=none",
)


class Stranger:
    """A folder of one python file and one yaml file, and the command line that is told of it."""

    def __init__(self, main: Main, folder: Path) -> None:
        self.main, self.folder, self.name = main, folder, ""

    def write(self, group: str, name: str, source: str, yaml: str) -> Path:
        self.name = name
        (self.folder / f"{name}.py").write_text(dedent(source))
        path = self.folder / "conf" / group / f"{name}.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(yaml)
        importlib.invalidate_caches()
        assert sorted(p.suffix for p in self.folder.rglob("*") if p.is_file()) == [".py", ".yaml"]
        return path

    @property
    def options(self) -> list[str]:
        return ["--config-dir", str(self.folder / "conf"), f"allow_targets=[{self.name}.]"]

    def run(self, *arguments: str) -> Path:
        """The run's directory."""
        done = self.main(*self.options, *arguments, "run_dir=result")
        assert done.code == 0, done.err
        return self.main.home / "result"

    def run_as_typed(self, *arguments: str) -> Path:
        """The same in a process of its own, which is told of the code by PYTHONPATH."""
        path = os.pathsep.join([str(self.folder), os.environ.get("PYTHONPATH", "")])
        done = self.main.process(*self.options, *arguments, "run_dir=result", env={"PYTHONPATH": path})
        assert done.code == 0, done.err
        return self.main.home / "result"


@pytest.fixture
def stranger(main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stranger]:
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)  # PYTHONPATH, for a process that has begun
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(config, "_extra_targets", [])
    made = Stranger(main, folder)
    yield made
    sys.modules.pop(made.name, None)


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """What `allow_targets` does, for checks that do not go through the command line."""
    return lambda name: monkeypatch.setattr(config, "ALLOWED_TARGETS", (*config.ALLOWED_TARGETS, f"{name}."))


@pytest.fixture(scope="module")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("To be, or not to be, that is the question.\n" * 60)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, text_file: Path) -> Path:
    home = tmp_path_factory.mktemp("trained")
    done = Main(home)(*pretraining(text_file), "data.seq_len=256", "run_dir=result")
    assert done.code == 0, done.err
    return home / "result"


def pretraining(text_file: Path) -> list[str]:
    return ["task=pretrain", "data=text", f"data.path={text_file}", "tokenizer=byte", *SMALL]


def losses(run: Path) -> list[float]:
    lines = (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
    return [line["val_loss"] for line in lines if "val_loss" in line]


def test_a_new_optimizer(stranger: Stranger, text_file: Path, trusted: Callable[[str], None]) -> None:
    path = stranger.write("optimizer", "signum", SIGNUM, SIGNUM_YAML)
    run = stranger.run_as_typed(
        *pretraining(text_file), "data.seq_len=32", "optimizer=signum", "optimizer.momentum=0.8"
    )
    before, after = losses(run)
    assert after < before
    saved = OmegaConf.load(run / "config.yaml")
    assert (saved.optimizer._target_, saved.optimizer.momentum) == ("signum.signum", 0.8)
    trusted("signum")
    check_optimizer(path)


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (["optimizer.lr=-1"], "error: optimizer.lr=-1: should be greater than 0"),
        (["optimizer.momentun=0.5"], "error: optimizer.momentun=0.5: no such key"),
        (["allow_targets=[]"], "error: optimizer._target_=signum.signum: may not be called"),
    ],
)
def test_a_mistake_in_a_new_component_is_told_like_any_other(
    stranger: Stranger, text_file: Path, extra: list[str], says: str
) -> None:
    stranger.write("optimizer", "signum", SIGNUM, SIGNUM_YAML)
    options = stranger.options[:2] if "allow_targets=[]" in extra else stranger.options
    done = stranger.main(*options, *pretraining(text_file), "optimizer=signum", *extra)
    assert done.code == 2
    assert done.err.startswith(says), done.err


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        (" if p.requires_grad]", "]", "nothing else"),
        ('alpha=group["lr"]', "alpha=1e-3", "moves at a learning rate of zero"),
        ("p.sub_(", "p.add_(", "does not fall"),
        ("self.state[p]", "self.__dict__.setdefault(id(p), {})", "keys|differs after a resume"),
        ("lr: Annotated[float, Field(gt=0)]", "lr: float", "DID NOT RAISE"),
    ],
)
def test_the_optimizers_contract_can_fail(
    stranger: Stranger, trusted: Callable[[str], None], right: str, wrong: str, says: str
) -> None:
    assert right in SIGNUM
    trusted("signum")
    path = stranger.write("optimizer", "signum", SIGNUM.replace(right, wrong), SIGNUM_YAML)
    with pytest.raises((AssertionError, pytest.fail.Exception), match=says):
        check_optimizer(path)


@pytest.mark.parametrize("texts", [step_contract.MIXED, []], ids=["mixed", "none"])
def test_a_new_curation_step(
    stranger: Stranger, trusted: Callable[[str], None], texts: list[str], monkeypatch: Any, tmp_path: Path
) -> None:
    path = stranger.write("curation/step", "shouting", SHOUTING, SHOUTING_YAML)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number in range(8):
        (corpus / f"{number}.txt").write_text(f"{step_contract.PROSE} This one has the number {number}.")
    (corpus / "loud.txt").write_text(step_contract.PROSE.upper())
    run = stranger.run(
        "task=curate", "curation=files", f"curation.sources.files.path={corpus}", "tracker=none",
        "curation.leaks=null", "curation.steps.exact_dedup=null",
        "+curation/step@curation.steps.shouting=shouting", "curation.steps.shouting.max_share=0.6",
    )  # fmt: skip
    ledger = pl.read_parquet(run / "ledger.parquet").filter(pl.col("step") == "shouting")
    assert ledger["reason"].to_list() == ["shouting"]
    assert "loud" in ledger["id"][0]
    kept = pl.concat([pl.read_parquet(run / f"{side}.parquet") for side in ("train", "validation")])
    assert kept.height == 8
    trusted("shouting")
    step_contract.test_contract(path, texts, monkeypatch, tmp_path)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("return documents.", "return documents.filter(~loud)."),  # removes rows itself
        ('pl.when(loud).then(pl.lit("shouting"))', "pl.lit(None, pl.String)"),  # no reason
        ('share.alias("score")', 'share.alias("score"), share.alias("_share")'),  # leaves something behind
        ("(~loud)", 'pl.col("text").str.to_uppercase().alias("text"), (~loud)'),  # changes a text
    ],
)
def test_the_steps_contract_can_fail(
    stranger: Stranger,
    trusted: Callable[[str], None],
    right: str,
    wrong: str,
    monkeypatch: Any,
    tmp_path: Path,
) -> None:
    assert right in SHOUTING
    trusted("shouting")
    path = stranger.write("curation/step", "shouting", SHOUTING.replace(right, wrong), SHOUTING_YAML)
    with pytest.raises(AssertionError):
        step_contract.test_contract(path, step_contract.MIXED, monkeypatch, tmp_path)


def test_a_new_attention(stranger: Stranger, text_file: Path) -> None:
    path = stranger.write("model/attention", "windowed", part_contract.WINDOW, WINDOWED_YAML)
    run = stranger.run(
        *pretraining(text_file), "data.seq_len=32", "model/attention=windowed", "model.attention.window=5"
    )
    before, after = losses(run)
    assert after < before
    assert OmegaConf.load(run / "config.yaml").model.attention.window == 5
    options = [*stranger.options, "task=generate", "tracker=none", f"checkpoint={run}", "prompt=To be"]
    assert stranger.main(*options, "generation.max_new_tokens=3").code == 0
    check_part("attention", load_part("attention", "windowed", path.parents[1]))


def test_a_new_exam(
    stranger: Stranger, trained: Path, trusted: Callable[[str], None], tmp_path: Path
) -> None:
    yaml = exam_contract.YAML.replace("llm.evaluation.first_word", "first_word")
    path = stranger.write("evaluation", "first_word", exam_contract.FIRST_WORD, yaml)
    run = stranger.run(
        "task=evaluate", f"checkpoint={trained}", "evaluation=[first_word]", "tracker=none",
        f"evaluation.first_word.path={rows_file(tmp_path, 2)}", "sample_tokens=2",
    )  # fmt: skip
    found = json.loads((run / "evaluation.json").read_text())["models"]["model"]["exams"]["first_word"]
    assert 0 <= found["metrics"]["correct"] <= 1
    trusted("first_word")
    from llm.tokenizers.base import load

    check_exam(path, tmp_path, load(next((trained / "checkpoints").glob("step_*")) / "tokenizer"))


def test_a_new_alignment_algorithm(
    stranger: Stranger, trained: Path, trusted: Callable[[str], None], tmp_path: Path
) -> None:
    yaml = alignment_contract.YAML.replace("llm.alignment.ipo", "ipo")
    path = stranger.write("alignment", "ipo", alignment_contract.IPO, yaml)
    rows = rows_file(tmp_path)
    run = stranger.run(
        "task=align", "alignment=ipo", "alignment.beta=0.3", "data=preferences", f"model.path={trained}",
        f"data.train={rows}", f"data.validation={rows}", *SMALL[3:],
    )  # fmt: skip
    before, after = losses(run)
    assert after < before
    trusted("ipo")
    check_algorithm(path)
