"""task=generate with a checkpoint on disk replaced by a small model in memory."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from llm.checkpoints.pretrained import Loaded
from llm.generation.engine import Generator
from llm.generation.sampling import Settings
from llm.runs.run import Run
from llm.tasks import generate as module
from llm.tokenizers import byte
from llm.tokenizers.chat import ChatML
from llm.types import ConfigError, Message, Tokenizer
from tests.models.composition import small

SETTINGS = Settings(max_new_tokens=8, temperature=1.0, seed=5)


@pytest.fixture
def tokenizer() -> Tokenizer:
    return byte.train(())


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run", seed=3)


@pytest.fixture
def checkpoint(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch):
    """Puts a model where the checkpoint would be; returns a generator with the same model."""

    def put(*, chat: bool, max_seq_len: int = 128) -> Generator:
        model = small(vocab_size=tokenizer.vocab_size, max_seq_len=max_seq_len).eval()
        loaded = Loaded(model, tokenizer, {"chat": chat})
        monkeypatch.setattr(module.Pretrained, "load", lambda self: loaded)
        return Generator(model, tokenizer)

    return put


@pytest.mark.parametrize("prompt", ["Hello", 'He said: "what\'s (1, 2)=3?"', "", "世界\n"])
def test_a_plain_model_continues(
    prompt: str, checkpoint, run: Run, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
):
    generator = checkpoint(chat=False)
    module.generate(run=run, checkpoint="x", generation=SETTINGS, prompt=prompt)
    (expected,) = generator.generate([tokenizer.encode(prompt)], SETTINGS)
    assert capsys.readouterr().out == expected.text + "\n"
    table = json.loads((run.directory / "tables" / "generations.json").read_text(encoding="utf-8"))
    assert table["rows"] == [[prompt, expected.text, expected.finish_reason, len(expected.ids)]]
    assert run.summary["new_tokens"] == len(expected.ids)


def test_an_aligned_model_answers(checkpoint, run: Run, tokenizer: Tokenizer, capsys):
    generator, template = checkpoint(chat=True), ChatML(tokenizer)
    module.generate(run=run, checkpoint="x", generation=SETTINGS, prompt="Why?", system="Be kind.")
    conversation = (Message("system", "Be kind."), Message("user", "Why?"))
    ids, _ = template.render(conversation, add_generation_prompt=True)
    settings = Settings(max_new_tokens=8, temperature=1.0, seed=5, stop_ids=template.stop_ids)
    assert capsys.readouterr().out == generator.generate([ids], settings)[0].text + "\n"


def test_the_run_gives_the_seed_unless_settings_do(checkpoint, run: Run, tokenizer: Tokenizer, capsys):
    generator = checkpoint(chat=False)
    settings = Settings(max_new_tokens=8, temperature=1.0)
    module.generate(run=run, checkpoint="x", generation=settings, prompt="a")
    seeded = Settings(max_new_tokens=8, temperature=1.0, seed=3)
    assert capsys.readouterr().out == generator.generate([tokenizer.encode("a")], seeded)[0].text + "\n"


def test_standard_input(checkpoint, run: Run, tokenizer: Tokenizer, capsys, monkeypatch):
    generator = checkpoint(chat=False)
    monkeypatch.setattr("sys.stdin", io.StringIO("two\nlines\n"))
    module.generate(run=run, checkpoint="x", generation=SETTINGS, prompt="-")
    assert (
        capsys.readouterr().out
        == generator.generate([tokenizer.encode("two\nlines")], SETTINGS)[0].text + "\n"
    )


def test_standard_input_that_is_not_text(checkpoint, run: Run, monkeypatch):
    checkpoint(chat=False)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe\x00"), encoding="utf-8"))
    with pytest.raises(ConfigError, match=r"^prompt=-: standard input is not text"):
        module.generate(run=run, checkpoint="x", generation=SETTINGS, prompt="-")


def test_standard_input_that_is_empty(checkpoint, run: Run, monkeypatch):
    checkpoint(chat=False)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    with pytest.raises(ConfigError, match=r"^prompt=-: standard input is empty"):
        module.generate(run=run, checkpoint="x", generation=SETTINGS, prompt="-")


def test_a_reader_who_has_seen_enough(checkpoint, run: Run, monkeypatch, tmp_path):
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

        def fileno(self) -> int:
            return spare

    checkpoint(chat=False)
    with (tmp_path / "out").open("w") as file:
        spare = file.fileno()
        monkeypatch.setattr("sys.stdout", Closed())
        module.generate(run=run, checkpoint="x", generation=SETTINGS, prompt="two")
    assert (run.directory / "tables" / "generations.json").is_file()


def test_no_prompt_and_no_terminal(checkpoint, run: Run, monkeypatch):
    checkpoint(chat=False)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(ConfigError, match=r"^prompt=None: give prompt="):
        module.generate(run=run, checkpoint="x", generation=SETTINGS)


def test_instructions_to_a_plain_model(checkpoint, run: Run):
    checkpoint(chat=False)
    with pytest.raises(ConfigError, match=r"^system=Be kind\.: this checkpoint was not aligned"):
        module.generate(run=run, checkpoint="x", generation=SETTINGS, prompt="a", system="Be kind.")


def _rendered(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Message, ...]]:
    """Records the conversations that are rendered."""
    seen: list[tuple[Message, ...]] = []
    render = ChatML.render

    def record(self, conversation, **options):
        seen.append(conversation)
        return render(self, conversation, **options)

    monkeypatch.setattr(ChatML, "render", record)
    return seen


def test_a_conversation_remembers(checkpoint, run: Run, capsys, monkeypatch):
    checkpoint(chat=True, max_seq_len=1000)
    seen = _rendered(monkeypatch)
    monkeypatch.setattr("sys.stdin", Terminal("first\nsecond\n\nnever\n"))
    module.generate(run=run, checkpoint="x", generation=SETTINGS, system="s")
    rows = json.loads((run.directory / "tables" / "generations.json").read_text(encoding="utf-8"))["rows"]
    assert [row[0] for row in rows] == ["first", "second"]
    first = (Message("system", "s"), Message("user", "first"))
    assert seen == [first, (*first, Message("assistant", rows[0][1]), Message("user", "second"))]
    # On standard output the answers alone, since it is not a terminal here.
    assert capsys.readouterr().out == "".join(f"{row[1]}\n" for row in rows)


def test_a_long_conversation_forgets_its_beginning(checkpoint, run: Run, monkeypatch):
    checkpoint(chat=True, max_seq_len=200)
    seen = _rendered(monkeypatch)
    monkeypatch.setattr("sys.stdin", Terminal("".join(f"question number {i}\n" for i in range(5))))
    module.generate(run=run, checkpoint="x", generation=SETTINGS, system="s")
    last = seen[-1]
    assert last[0] == Message("system", "s")
    assert last[1].role == "user"
    assert last[-1] == Message("user", "question number 4")
    assert len(last) < 2 * 5


def test_one_turn_too_long_is_said_and_the_conversation_goes_on(checkpoint, run: Run, capsys, monkeypatch):
    checkpoint(chat=True, max_seq_len=100)
    monkeypatch.setattr("sys.stdin", Terminal("x" * 300 + "\nshort\n"))
    module.generate(run=run, checkpoint="x", generation=SETTINGS)
    assert "max_seq_len=100" in " ".join(capsys.readouterr().err.split())
    rows = json.loads((run.directory / "tables" / "generations.json").read_text(encoding="utf-8"))["rows"]
    assert [row[0] for row in rows] == ["short"]


def test_a_full_context_is_told_of(checkpoint, run: Run, tokenizer: Tokenizer, capsys):
    generator = checkpoint(chat=False, max_seq_len=16)
    module.generate(run=run, checkpoint="x", generation=replace(SETTINGS, max_new_tokens=50), prompt="Hello")
    told = " ".join(capsys.readouterr().err.split())
    assert "context is full: max_seq_len=16 tokens, and the prompt has 5" in told
    module.generate(run=run, checkpoint="x", generation=SETTINGS, prompt="Hello")
    assert "context" not in capsys.readouterr().err
    assert generator.model.max_seq_len == 16
