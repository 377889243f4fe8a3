"""task=generate: let a trained model write, once or in a conversation."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from llm import runtime
from llm.checkpoints.pretrained import Pretrained, of_one_model
from llm.generation.engine import Completion, Generator
from llm.generation.sampling import Settings
from llm.runs.run import Run
from llm.tokenizers.base import opening_ids
from llm.tokenizers.template import template_for
from llm.types import ChatTemplate, ConfigError, Conversation, Message, Tokenizer

Render = Callable[[Conversation], list[int]]


@of_one_model
def generate(
    *,
    run: Run,
    generation: Settings,
    checkpoint: str | None = None,
    model: Pretrained | None = None,
    prompt: str | None = None,
    system: str | None = None,
) -> None:
    """Writes the model's answer to standard output, piece by piece, and nothing else there.

    An aligned model answers the prompt as a user's turn, any other model continues it as text.

    Args:
        run: Where the answers are recorded.
        generation: How to write.
        checkpoint: A run's folder or one of its checkpoints, a Hugging Face directory, or a GGUF file.
        model: A trained model in place of `checkpoint`, as ``model=pretrained model.hub=org/name``.
        prompt: The text; ``-`` reads standard input; null starts a conversation on a terminal.
        system: Instructions to an aligned model, ahead of the conversation.
    """
    if prompt is None and not sys.stdin.isatty():
        raise ConfigError("prompt", None, 'give prompt="...", or prompt=- to read standard input')
    if prompt == "-":
        prompt = _standard_input()
        if not prompt:
            raise ConfigError("prompt", "-", "standard input is empty")
    trained, tokenizer, info = Pretrained.chosen(checkpoint, model).load(run)
    settings = generation if generation.seed is not None else replace(generation, seed=run.seed)
    render: Render = _plain(tokenizer)
    if info.get("chat"):
        template = template_for(tokenizer)
        render = _templated(template)
        settings = replace(settings, stop_ids=(*settings.stop_ids, *template.stop_ids))
    elif system is not None:
        raise ConfigError(
            "system", system, "this checkpoint was not aligned to follow instructions; leave it out"
        )
    opening = () if system is None else (Message("system", system),)
    writer = _Writer(run, Generator(trained, tokenizer, runtime.device()), settings)
    try:
        if prompt is None:
            run.say("An empty line or Ctrl-D ends the conversation.")
            _converse(writer, render, opening, remembers=bool(info.get("chat")), limit=trained.max_seq_len)
        else:
            writer.write(render((*opening, Message("user", prompt))), prompt)
    except BrokenPipeError:  # the reader has seen enough: `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    writer.record()


class _Writer:
    """Generates, prints and keeps count."""

    def __init__(self, run: Run, generator: Generator, settings: Settings) -> None:
        self.run, self.generator, self.settings = run, generator, settings
        self.rows: list[tuple[str, str, str, int]] = []
        self.n_tokens = 0
        self.seconds = 0.0

    def write(self, ids: list[int], asked: str) -> str:
        """Streams the continuation of `ids` to standard output and returns it."""
        began = time.perf_counter()
        # Each turn of a conversation draws afresh, and the same way when all of it is repeated.
        settings = replace(self.settings, seed=(self.settings.seed or 0) + len(self.rows))
        for part in self.generator.stream(ids, settings):
            if isinstance(part, Completion):
                done = part
            else:
                sys.stdout.write(part)
                sys.stdout.flush()
        sys.stdout.write("\n")
        sys.stdout.flush()
        if done.finish_reason == "length" and len(done.ids) < settings.max_new_tokens:
            limit = self.generator.model.max_seq_len
            self.run.say(
                f"The answer ends here because the model's context is full: max_seq_len={limit} tokens, "
                f"and the prompt has {done.n_prompt_tokens}."
            )
        seconds = time.perf_counter() - began
        self.n_tokens += len(done.ids)
        self.seconds += seconds
        self.rows.append((asked, done.text, done.finish_reason, len(done.ids)))
        metrics = {"new_tokens": len(done.ids), "tokens_per_second": len(done.ids) / seconds}
        self.run.log(metrics, step=len(self.rows))
        return done.text

    def record(self) -> None:
        """The table of all that was written, and the run's summary."""
        self.run.log_table("generations", ["prompt", "completion", "finish_reason", "n_tokens"], self.rows)
        self.run.summary["new_tokens"] = self.n_tokens
        if self.seconds:
            self.run.summary["tokens_per_second"] = self.n_tokens / self.seconds


def _converse(writer: _Writer, render: Render, opening: Conversation, *, remembers: bool, limit: int) -> None:
    """Turn by turn until the person has enough; the oldest turns are forgotten when the context is full."""
    turns: Conversation = ()
    for said in _said():
        turns = (*turns, Message("user", said)) if remembers else (Message("user", said),)
        ids = render((*opening, *turns))
        while len(ids) > limit // 2 and len(turns) > 2:
            turns = turns[2:]
            ids = render((*opening, *turns))
        try:
            answer = writer.write(ids, said)
        except ConfigError as error:
            writer.run.say(f"error: {error}")
            turns = turns[:-1]
            continue
        turns = (*turns, Message("assistant", answer))


def _said() -> Iterator[str]:
    """What the person types, line by line, up to an empty line or the end of the input."""
    while True:
        try:
            # Not on standard output when that is a file: it gets the answers alone.
            if not sys.stdout.isatty():
                sys.stderr.write("> ")
                sys.stderr.flush()
            line = input("> " if sys.stdout.isatty() else "").strip()
        except EOFError:
            return
        if not line:
            return
        yield line


def _standard_input() -> str:
    try:
        return sys.stdin.read().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise ConfigError(
            "prompt", "-", f"standard input is not text ({error.reason}); give it as UTF-8"
        ) from error


def _plain(tokenizer: Tokenizer) -> Render:
    return lambda conversation: [*opening_ids(tokenizer), *tokenizer.encode(conversation[-1].content)]


def _templated(template: ChatTemplate) -> Render:
    return lambda conversation: template.render(conversation, add_generation_prompt=True)[0]
