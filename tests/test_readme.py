"""Every command of README.md, run as a user would type it, only smaller.

Size overrides are appended to each command, words in capitals are replaced by a real run made once, the
address of the download by a server on this machine. A command that no rule below covers fails, so README
cannot gain one that nobody runs.
"""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import itertools
import json
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import llm.optimizers
from tests.conftest import REPOSITORY, Main

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


# ----------------------------------------------------------------------------- reading README


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands_of(block: str) -> list[str]:
    lines = block.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


MISTAKES = {
    command: line
    for block, said in re.findall(
        r"^```bash\n([^`]*)^```\n\n```text\n(error: [^`]*)^```$", README, re.MULTILINE
    )
    for command, line in zip(commands_of(block), said.splitlines(), strict=True)
}
"""Commands that README shows to be refused, and with which words."""

COMMANDS = list(dict.fromkeys(command for block in blocks("bash") for command in commands_of(block)))

CI = {
    "pip install -e .": r"pip install (-q )?(-c constraints\.txt )?-e \.",
    "pip install -e '.[dev]'": r"pip install (-q )?(-c constraints\.txt )?-e '\.\[dev\]'",
    **{line: re.escape(line) for line in ("pytest", "mypy", "lint-imports", "codespell")},
    **{line: re.escape(line) for line in ("ruff check .", "ruff format --check .", "deptry .")},
}
"""Commands that are too much for a test, and what a line of `.ci/run` that runs them looks like."""


# ----------------------------------------------------------------------------- making them small

NO_TRACKER = ["tracker=none"]
MODEL = ["model.d_model=16", "model.n_layers=1", "model.n_heads=2"]
TRAINER = [
    "trainer.max_steps=2",
    "trainer.batch_size=2",
    "trainer.eval_every_steps=2",
    "trainer.eval_batches=1",
]
SHORT = ["data.seq_len=256"]
GENERATE = ["generation.max_new_tokens=3"]
STAGES = [
    f"stages.{stage}.{override}" for stage in ("pretrain", "sft", "dpo") for override in (*TRAINER, *SHORT)
]
NO_LANGUAGES = ["curation.steps.language.missing=skip", "curation.steps.language.path=not_here.ftz"]
"""The step's model is on the network."""
CURATION = [
    "curation.sources.embedded.packages=[polars]",
    "curation.sources.embedded.max_doc_bytes=400000",
    "curation.sources.embedded.max_source_bytes=0",
]
CURATE = {
    "embedded": [*CURATION, "curation.derive=null"],
    "web": ["curation.split.validation_fraction=0.3", *NO_LANGUAGES],
    "code": ["curation.split.validation_fraction=0.3"],
}
LIFECYCLE = [
    *(f"stages.curate.{override}" for override in CURATION),
    "stages.curate.curation.split.validation_fraction=0.3",
    "stages.curate.curation.derive.max_conversations=50",
    "stages.curate.curation.derive.max_pairs=50",
    "stages.curate.curation.derive.validation_pairs=10",
    "stages.curate.curation.derive.exam_questions=8",
    "stages.curate.curation.derive.pairs_ceiling=1",
    "stages.curate.curation.derive.exam_ceiling=1",
    "tokenizer.vocab_size=400",
    *MODEL,
    *STAGES,
    "stages.evaluate.sample_tokens=4",
    *NO_TRACKER,
]


def small(arguments: list[str], download: list[str]) -> list[str]:
    """What to append so that the command takes a second."""
    given = dict(argument.partition("=")[::2] for argument in arguments if not argument.startswith("-"))
    if "resume" in given:
        return [*NO_TRACKER, "trainer.max_steps=4"]
    if "reproduce" in given:
        return [*NO_TRACKER, "allow_drift=true"]  # someone may be editing while the tests run
    task = given.get("task", "pretrain" if {"experiments", "sweeps"} & set(given) else "lifecycle")
    if task == "pretrain":
        # A sweep is made smaller by fewer and smaller cells, not by one.
        varied = "sweeps" in given or "-m" in arguments
        if given.get("model") == "pretrained":
            return [*TRAINER, *NO_TRACKER]
        if given.get("sweeps") == "mup_transfer":
            cells = ["model.d_model=16", "optimizer.lr=1e-3", "model/parametrization=mup"]
            cells += ["model.n_layers=1", "model.n_heads=2,3"]
            return [*cells, *download, *TRAINER, "data.seq_len=16", *NO_TRACKER]
        shape = ["model.d_model=16", "model.n_layers=1", "model.n_heads=2,3"] if "sweeps" in given else MODEL
        shape = [o for o in shape if not (varied and "," in given.get(o.partition("=")[0], ""))]
        llama = ["model.n_kv_heads=1"] if given.get("model") == "llama" else []
        bpe = ["tokenizer.vocab_size=300"] if "tokenizer" not in given and "sweeps" not in given else []
        bpe = [] if "experiments" in given else bpe
        source = [] if {"data", "data.path"} & set(given) else download
        if given.get("data") == "span_corruption":
            source = [override.replace("data.", "data.corpus.", 1) for override in download]
        short = {"packed": SHORT, "span_corruption": ["data.seq_len=64"]}
        length = short.get(given.get("data", ""), ["data.seq_len=16"])
        return [*shape, *llama, *bpe, *source, *TRAINER, *length, *NO_TRACKER]
    if task == "curate":
        engine = ["curation.engine.n_cpus=1"] if given.get("curation/engine") == "ray" else []
        own = CURATE.get(given.get("curation", "embedded"), [])
        return [*own, *engine, *NO_TRACKER]
    if task == "tokenize" and given.get("tokenizer") == "saved":
        return NO_TRACKER
    return {
        "lifecycle": LIFECYCLE,
        "tokenize": ["tokenizer.vocab_size=300", *NO_TRACKER],
        "doremi": [*MODEL, *TRAINER, "data.seq_len=16", *NO_TRACKER],
        "train_classifier": ["classifier.model.dim=4", "classifier.model.bucket=1000", *NO_TRACKER],
        "align": [*TRAINER, *SHORT, *NO_TRACKER],
        "evaluate": ["sample_tokens=2", *NO_TRACKER],
        "generate": [*GENERATE, *NO_TRACKER],
        "validate": ["only=task=pretrain", *NO_TRACKER],
        "coordinate_check": ["widths=[32,64]", "n_steps=2", "n_seeds=1", *NO_TRACKER],
    }.get(task, NO_TRACKER)


# ----------------------------------------------------------------------------- what stands for the capitals


@dataclass(frozen=True)
class Place:
    """A folder in which the quickstart has run, and all that README's other commands start from."""

    main: Main
    quickstart: Main.Done
    words: dict[str, str]
    """What stands for a word in capitals."""
    download: list[str]
    """Overrides that put a server on this machine in the network's place."""

    def fill(self, command: str) -> str:
        """The command with everything that is the user's to fill in."""
        if re.search(r"\b(reproduce|resume)=RUN_DIR\b", command):
            command = command.replace("RUN_DIR", self.words["TRAINED"])
        return re.sub(r"\b[A-Z][A-Z_]+\b", lambda found: self.words.get(found[0], found[0]), command)


def newest(home: Path, name: str) -> str:
    """The run that began last; two names may have the same second in them."""
    return str(max((home / "runs" / name).iterdir(), key=lambda run: (run / ".lock").stat().st_mtime_ns))


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    home = tmp_path_factory.mktemp("readme")
    main = Main(home)
    text = "".join(f"{number}: To be, or not to be, that is the question.\n" for number in range(200))
    (home / "text.txt").write_text(text)
    written = sources(home)
    with serving_files(home) as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        patch.setenv("no_proxy", "127.0.0.1")
        digest = hashlib.sha256(text.encode()).hexdigest()
        quickstart = main(*LIFECYCLE)
        assert quickstart.code == 0, quickstart.err
        trained = main(
            "task=pretrain", "data=text", "data.path=text.txt", "data.seq_len=16", "tokenizer=byte",
            *MODEL, *TRAINER, "name=trained", *NO_TRACKER,
        )  # fmt: skip
        assert trained.code == 0, trained.err
        run = Path(newest(home, "quickstart"))
        left = {n: s["directory"] for n, s in json.loads((run / "result.json").read_text())["stages"].items()}
        words = {
            "RUN_DIR": str(run),
            "TRAINED": newest(home, "trained"),
            "CORPUS": left["curate"],
            "TOKENS": left["tokenize"],
            "CONVERSATIONS": f"{left['curate']}/conversations_validation.jsonl",
            "PAIRS": f"{left['curate']}/preferences_validation.jsonl",
            "EXAM": f"{left['curate']}/exam.jsonl",
            "FILE": "text.txt",
            "PARTS": "parts",
        }
        words |= written
        for directory, arguments in {
            "more_tokens": [
                "task=tokenize", "train=texts/0.txt", "validation=texts/1.txt", "tokenizer=saved",
                f"tokenizer.directory={left['tokenize']}/tokenizer",
            ],
            "learned": ["task=doremi", f"data.paths={{text: {left['tokenize']}, more: more_tokens}}"],
            "classifier": [
                "task=train_classifier", "classifier.examples.positives.paths=[good.jsonl]",
                "classifier.examples.negatives.paths=[other.jsonl]",
            ],
        }.items():  # fmt: skip
            done = main(*arguments, *small(arguments, []), f"run_dir={directory}")
            assert done.code == 0, done.err
        words |= {"MORE_TOKENS": "more_tokens", "WEIGHTS": "learned/weights.json", "CLASSIFIER": "classifier"}
        exported = main("task=export", f"checkpoint={run}", "output=exported", *NO_TRACKER)
        assert exported.code == 0, exported.err
        words["HF_DIR"] = "exported"
        yield Place(main, quickstart, words, [f"data.url={address}/text.txt", f"data.sha256={digest}"])


def sources(home: Path) -> dict[str, str]:
    """Texts to curate, and what stands for them: pages of prose, some of them twice, and code."""
    rng = random.Random(0)
    common = ["the", "of", "and", "that", "to", "with"]

    def page(words: list[str]) -> str:
        return "\n".join(
            " ".join(rng.choices(common, k=4) + rng.choices(words, k=14)).capitalize() + "." for _ in range(6)
        )

    syllables = ["ba", "ke", "li", "mo", "nu", "ra", "se", "ti", "vo", "wu"]
    made = ["".join(one) for one in itertools.product(syllables, repeat=3)]
    good, other = ([page(words) for _ in range(120)] for words in (made[:500], made[500:]))
    files_of = {"pages.jsonl": [*good[:40], *good[:4]], "good.jsonl": good, "other.jsonl": other}
    for name, texts in files_of.items():
        (home / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (home / "texts").mkdir()
    for number, text in enumerate(good[40:50]):
        (home / "texts" / f"{number}.txt").write_text(text)
    (home / "code").mkdir()
    for number in range(12):
        names = made[number * 40 :][:40]
        pairs = zip(names[::2], names[1::2], strict=True)
        lines = [f"def {name}({one}):\n    return {one} * {number}\n" for name, one in pairs]
        (home / "code" / f"{made[number]}.py").write_text("\n\n".join(lines))
    (home / "crawl").mkdir()
    with (home / "crawl" / "pages.warc").open("wb") as archive:
        for number, text in enumerate(good[:30]):
            paragraphs = "".join(f"<p>{line}</p>" for line in text.splitlines())
            html = f"<html><head><title>{number}</title></head><body>{paragraphs}</body></html>"
            answer = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n{html}".encode()
            fields = [
                "WARC/1.0", "WARC-Type: response", f"WARC-Target-URI: https://example.org/{number}",
                "WARC-Date: 2026-01-31T12:00:00Z", f"WARC-Record-ID: <urn:uuid:{number}>",
                "Content-Type: application/http; msgtype=response", f"Content-Length: {len(answer)}",
            ]  # fmt: skip
            archive.write("\r\n".join([*fields, "", ""]).encode() + answer + b"\r\n\r\n")
    return {
        "TEXT_DIR": "texts",
        "JSONL": "pages.jsonl",
        "WARC_DIR": "crawl",
        "CODE_DIR": "code",
        "GOOD_TEXT": "good.jsonl",
        "OTHER_TEXT": "other.jsonl",
    }


class serving_files:  # noqa: N801 - a context manager
    """A web server of a folder."""

    def __init__(self, folder: Path) -> None:
        handler = functools.partial(_Quiet, directory=str(folder))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


class Terminal(io.StringIO):
    """What a person types."""

    def isatty(self) -> bool:
        return True


# ----------------------------------------------------------------------------- the rules

Rule = Callable[[str, Place, pytest.MonkeyPatch], None]


def arguments_of(command: str, place: Place) -> list[str]:
    program, main, *arguments = shlex.split(place.fill(command))
    assert (program, main) == ("python", "main.py")
    return arguments


def is_run_by_ci(command: str, place: Place, patch: pytest.MonkeyPatch) -> None:
    lines = (REPOSITORY / ".ci" / "run").read_text().splitlines()
    assert any(re.fullmatch(CI[command], line.strip()) for line in lines), f".ci/run does not run {command}"


def is_ci(command: str, place: Place, patch: pytest.MonkeyPatch) -> None:
    assert os.access(REPOSITORY / command, os.X_OK)


def clones(command: str, place: Place, patch: pytest.MonkeyPatch) -> None:
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout")
    git, clone, _, folder = shlex.split(command)
    line = [git, clone, "--quiet", "--depth=1", f"file://{REPOSITORY}", folder]
    subprocess.run(line, cwd=place.main.home, check=True, capture_output=True)
    assert "cd llm-experiments" in COMMANDS
    assert (place.main.home / "llm-experiments" / "main.py").is_file()
    shutil.rmtree(place.main.home / "llm-experiments")


def goes_there(command: str, place: Place, patch: pytest.MonkeyPatch) -> None:
    """The folder that the line before has made; see `clones`."""


def quickstart(command: str, place: Place, patch: pytest.MonkeyPatch) -> None:
    for stage in ("curate", "tokenize", "pretrain", "sft", "dpo", "evaluate"):
        assert f"[{stage}]" in place.quickstart.err
    assert "exam" in place.quickstart.err
    for said in ("task=generate", "task=serve", "sweeps=", "reproduce=", "report.html"):
        assert said in place.quickstart.err, f"the quickstart ends without telling of {said}"
    again = place.main(*arguments_of(command, place), *LIFECYCLE)
    assert again.code == 0, again.err
    assert again.err.count("is there already") == 6


def simply_runs(command: str, place: Place, patch: pytest.MonkeyPatch) -> None:
    arguments = arguments_of(command, place)
    done = place.main(*arguments, *small(arguments, place.download))
    assert done.code == 0, done.err
    assert "error" not in done.err.lower()


def exports(command: str, place: Place, patch: pytest.MonkeyPatch) -> None:
    """To another folder than the one that the commands after it start from."""
    simply_runs(command.replace("HF_DIR", "exported_again"), place, patch)
    assert (place.main.home / "exported_again" / "config.json").is_file()


def prints(command: str, place: Place, patch: pytest.MonkeyPatch) -> None:
    """`--cfg`, `--info` and `--help` start nothing."""
    before = sorted((place.main.home / "runs").rglob("*"))
    done = place.main(*arguments_of(command, place))
    assert done.code == 0, done.err
    assert len(done.out) > 500
    assert sorted((place.main.home / "runs").rglob("*")) == before


def completes(command: str, place: Place, patch: pytest.MonkeyPatch) -> None:
    script = command.replace("python main.py", f"{sys.executable} {REPOSITORY / 'main.py'}")
    done = subprocess.run(["bash", "-c", script], cwd=place.main.home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stderr


def answers(command: str, place: Place, patch: pytest.MonkeyPatch) -> None:
    arguments = arguments_of(command, place)
    done = place.main(*arguments, *small(arguments, place.download))
    assert done.code == 0, done.err
    assert done.out.endswith("\n")


def answers_what_is_piped(command: str, place: Place, patch: pytest.MonkeyPatch) -> None:
    first, _, second = command.partition(" | ")
    echo, text = shlex.split(first)
    assert echo == "echo"
    patch.setattr(sys, "stdin", io.StringIO(text + "\n"))
    answers(second, place, patch)
    tables = Path(newest(place.main.home, "generate")) / "tables" / "generations.json"
    assert json.loads(tables.read_text())["rows"][0][0] == text


def converses(command: str, place: Place, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sys, "stdin", Terminal("Hello.\nAnd then?\n\n"))
    answers(command, place, patch)
    tables = Path(newest(place.main.home, "generate")) / "tables" / "generations.json"
    assert [row[0] for row in json.loads(tables.read_text())["rows"]] == ["Hello.", "And then?"]


def reproduces(command: str, place: Place, patch: pytest.MonkeyPatch) -> None:
    arguments = arguments_of(command, place)
    done = place.main(*arguments, *small(arguments, place.download))
    assert done.code == 0, done.err
    assert "bitwise equal" in done.err


def sweeps(command: str, place: Place, patch: pytest.MonkeyPatch) -> None:
    arguments = arguments_of(command, place)
    command_line = [*arguments, *small(arguments, place.download)]
    done = place.main(*command_line)
    assert done.code == 0, done.err
    name = next(a.partition("=")[2] for a in arguments if a.startswith(("sweeps=", "name=")))
    folder = place.main.home / "runs" / "sweeps" / name
    trials = {p.parent.name: p.stat().st_mtime_ns for p in folder.glob("*/done.json")}
    assert len(trials) == (1 if "sweeps=" in command else 2)
    assert bool(re.search(r"refused .*model.n_heads=3", done.err)) == ("sweeps=" in command)
    assert (folder / "ranking.png").is_file()
    if "sweeps=" not in command:
        return
    assert place.main(*command_line).code == 0
    assert {p.parent.name: p.stat().st_mtime_ns for p in folder.glob("*/done.json")} == trials, (
        "a trial ran again"
    )


def takes_part(command: str, place: Place, patch: pytest.MonkeyPatch) -> None:
    torchrun, alone, number, main, *arguments = shlex.split(place.fill(command))
    assert (torchrun, alone, number, main) == ("torchrun", "--standalone", "--nproc-per-node=2", "main.py")
    done = place.main.torchrun(2, *arguments, *small(arguments, place.download))
    assert done.code == 0, done.err


def serves(command: str, place: Place, patch: pytest.MonkeyPatch) -> None:
    """Started, asked by README's own `curl`, and stopped by Ctrl-C."""
    pytest.importorskip("uvicorn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [
        sys.executable,
        str(REPOSITORY / "main.py"),
        *arguments_of(command, place),
        f"serving.port={port}",
    ]
    server = subprocess.Popen([*line, *NO_TRACKER], cwd=place.main.home, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        for said in server.stderr:
            if f"127.0.0.1:{port}" in said:
                break
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as page:
            assert b"<html" in page.read()
        asked = next(c for c in COMMANDS if c.startswith("curl ")).replace(":8000/", f":{port}/")
        if shutil.which("curl"):
            done = subprocess.run(
                [*shlex.split(asked), "--silent"], capture_output=True, text=True, timeout=60
            )
            assert json.loads(done.stdout)["choices"][0]["message"]["role"] == "assistant", done
        time.sleep(0.1)
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0
    finally:
        server.kill()
        server.communicate()


def is_asked_of_the_server(command: str, place: Place, patch: pytest.MonkeyPatch) -> None:
    """See `serves`, which asks it; the words alone can be held against the code here."""
    assert "http://127.0.0.1:8000/v1/chat/completions" in command
    assert "port: 8000" in (REPOSITORY / "conf" / "serving" / "default.yaml").read_text()


def is_refused(command: str, place: Place, patch: pytest.MonkeyPatch) -> None:
    done = place.main(*arguments_of(command, place), *NO_TRACKER)
    assert done.code == 2
    assert done.err.splitlines() == [MISTAKES[command]]


def runs_the_added_component(command: str, place: Place, patch: pytest.MonkeyPatch) -> None:
    """README's python and yaml file, as they would lie in the repository."""
    folder = place.main.home / "added"
    python, yaml = added()
    for path, text in (
        (folder / "inverse_sqrt.py", python),
        (folder / "conf/schedule/inverse_sqrt.yaml", yaml),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    patch.setattr(llm.optimizers, "__path__", [*llm.optimizers.__path__, str(folder)])
    arguments = arguments_of(command, place)
    options = ["--config-dir", str(folder / "conf")]
    done = place.main(*options, *arguments, *small(arguments, place.download))
    sys.modules.pop("llm.optimizers.inverse_sqrt", None)
    assert done.code == 0, done.err
    assert (
        "error: schedule.warmup_steps=many: "
        in place.main(*options, *arguments, "schedule.warmup_steps=many").err
    )


def runs_a_component_kept_elsewhere(command: str, place: Place, patch: pytest.MonkeyPatch) -> None:
    """The same two files, in a folder of the user's own."""
    python, yaml = added()
    folder = place.main.home / "parts"
    (folder / "conf" / "schedule").mkdir(parents=True)
    (folder / "mine.py").write_text(python)
    (folder / "conf/schedule/mine.yaml").write_text(yaml.replace("llm.optimizers.inverse_sqrt.", "mine."))
    setting, python_, main, *arguments = shlex.split(place.fill(command))
    assert (python_, main) == ("python", "main.py")
    name, _, value = setting.partition("=")
    assert name == "PYTHONPATH"
    patch.syspath_prepend(place.main.home / value)  # what it does for a process that has begun
    done = place.main(*arguments, *small(arguments, place.download), "run_dir=elsewhere")
    assert done.code == 0, done.err
    again = place.main(*arguments[:2], arguments[-1], "reproduce=elsewhere", *NO_TRACKER)
    assert again.code == 0, again.err
    assert "add --config-dir " in place.main("reproduce=elsewhere", *NO_TRACKER).err
    (folder / "mine.py").write_text(python + "# changed\n")
    changed = place.main(*arguments[:2], arguments[-1], "reproduce=elsewhere", *NO_TRACKER)
    assert changed.code == 2
    assert "code mine: sha256 " in changed.err


def added() -> tuple[str, str]:
    """The python and the yaml file of README's example, which stand under their paths."""
    found = dict(re.findall(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)^```$", README, re.MULTILINE | re.DOTALL))
    return found["llm/optimizers/inverse_sqrt.py"], found["conf/schedule/inverse_sqrt.yaml"]


RULES: list[tuple[str, Rule]] = [
    ("|".join(map(re.escape, CI)), is_run_by_ci),
    (r"\.ci/run", is_ci),
    (r"git clone \S+ llm-experiments", clones),
    (r"cd llm-experiments", goes_there),
    ("|".join(map(re.escape, MISTAKES)), is_refused),
    (r"python main\.py", quickstart),
    (r"python main\.py .*(--cfg job|--info defaults|--help)", prints),
    (r'eval "\$\(python main\.py -sc install=bash\)"', completes),
    (r"python main\.py (sweeps=|-m ).*", sweeps),
    (r"python main\.py reproduce=RUN_DIR", reproduces),
    (r"python main\.py task=generate .*prompt=[^-].*", answers),
    (r"echo .* \| python main\.py task=generate .*prompt=-", answers_what_is_piped),
    (r"python main\.py task=generate ((?!prompt=).)*", converses),
    (r"python main\.py task=serve .*", serves),
    (r"curl .*", is_asked_of_the_server),
    (r"python main\.py task=pretrain schedule=inverse_sqrt .*", runs_the_added_component),
    (r"PYTHONPATH=PARTS python main\.py --config-dir PARTS/conf .*", runs_a_component_kept_elsewhere),
    (r"torchrun .*", takes_part),
    (r"python main\.py task=export .*", exports),
    (
        r"python main\.py (?!sweeps=|-m |reproduce=|task=(generate|serve)|.*schedule=inverse_sqrt|.*--)\S.*",
        simply_runs,
    ),
]
"""Pattern of the whole command, and what is done with it. The first one that fits counts."""


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = next((rule for pattern, rule in RULES if re.fullmatch(pattern, command)), None)
    assert rule is not None, f"README has a command that no rule of this test covers: {command}"
    rule(command, place, monkeypatch)


# ----------------------------------------------------------------------------- the rest of the page


def test_the_commands_of_the_first_screen_come_first() -> None:
    assert COMMANDS[1:4] == ["cd llm-experiments", "pip install -e .", "python main.py"]
    assert COMMANDS[4:6] == ["pip install -e '.[dev]'", "pytest"]
    assert len(MISTAKES) >= 4


def test_the_python_example_runs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.main.home)
    examples = [block for block in blocks("python") if block not in added()]
    assert examples
    for example in examples:
        exec(compile(example, "README.md", "exec"), {})


def table(header: str) -> dict[str, list[str]]:
    """The first two columns of the table under `header`: names, and the words in the second as code."""
    rows = README.partition(header)[2].partition("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if row.startswith("|")]
    return {
        first.strip("`"): re.findall(r"`([^`]+)`", second) for first, second in cells if set(first) != {"-"}
    }


def test_the_table_of_groups_is_what_conf_holds() -> None:
    folders = [REPOSITORY / "conf", REPOSITORY / "experiments", REPOSITORY / "sweeps"]
    held: dict[str, list[str]] = {}
    for path in itertools.chain.from_iterable(folder.rglob("*.yaml") for folder in folders):
        root = REPOSITORY if path.relative_to(REPOSITORY).parts[0] != "conf" else REPOSITORY / "conf"
        group = path.parent.relative_to(root).as_posix()
        if group != "." and not group.startswith("hydra"):
            held.setdefault(group, []).append(path.stem)
    told = table("| group | options |")
    assert {group: sorted(options) for group, options in told.items()} == {
        g: sorted(set(o)) for g, o in held.items()
    }


def test_the_table_of_tasks_is_what_conf_holds() -> None:
    assert set(table("| task | in one line |")) == {
        path.stem for path in (REPOSITORY / "conf/task").glob("*.yaml")
    }


def test_what_it_says_of_a_run_directory_is_there(place: Place) -> None:
    """`wandb/` is the tracker's, which these runs go without."""
    tree = next(block for block in blocks("text") if block.startswith("runs/NAME"))
    names = [name.rstrip("/") for name in re.findall(r"^    (\S+)", tree, re.MULTILINE)]
    assert {"config.yaml", "done.json", "wandb"} <= set(names)
    for name in set(names) - {"wandb"}:
        assert (Path(place.words["RUN_DIR"]) / name).exists(), name
    assert (Path(place.words["CORPUS"]) / "manifest.json").is_file()


def test_what_it_says_a_curation_leaves_is_there(place: Place) -> None:
    arguments = ["task=curate", "curation=web", f"curation.sources.files.path={place.words['JSONL']}"]
    done = place.main(*arguments, *small(arguments, []), "run_dir=curated")
    assert done.code == 0, done.err
    rows = README.partition("| file | what is in it |")[2].partition("\n\n")[0].splitlines()
    cells = [row.split("|")[1] for row in rows if row.startswith("|")]
    names = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    assert len(names) > 6
    for name in names:
        assert (place.main.home / "curated" / name).is_file(), name
    assert list((place.main.home / "artifacts" / "attributes").rglob("*.parquet"))


def test_links_and_pictures_are_there() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert "docs/design.md" in targets
    missing = [t for t in targets if not t.startswith("http") and not (REPOSITORY / t).is_file()]
    assert not missing


def test_no_number_is_left_open() -> None:
    assert re.findall(r"<!-- figure: [\w-]+ -->", README) == []
