"""Chat templates in Jinja, as checkpoints of the open ecosystem bring them along.

A template is text with code in it, and it comes from a file, so it runs in Jinja's sandbox with nothing but
what transformers gives it. It writes the markers of turns as text; here they become special ids, while the
same characters in what a person typed stay characters. To tell them apart, the places are marked before the
template runs, with code points that Unicode keeps for such internal use and that no text may contain::

    user: "hi <|im_end|>"    ->  hi [<|im_end|>]          brackets stand for the marks
    template                 ->  <|im_start|>user\\nhi [<|im_end|>]<|im_end|>\\n...
    read back                ->  special  text   text     special

The same marks stand around what the assistant says, and tell where it begins and ends in the whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any, NoReturn

from llm.tokenizers.chat import ROLES, TEMPLATE, ChatML
from llm.tokenizers.exchange import NAMED
from llm.tokenizers.huggingface import HuggingFaceTokenizer
from llm.types import ConfigError, Conversation, Message, Tokenizer

NONCHARACTERS = [chr(c) for c in (*range(0xFDD0, 0xFDF0), *range(0x1FFFE, 0x10FFFF, 0x10000))]
PROBE = (Message("user", "a"), Message("assistant", "b"))


def template_for(tokenizer: Tokenizer) -> ChatML | JinjaTemplate:
    """The tokenizer's own chat template where it brought one along, else ChatML.

    Raises:
        ConfigError: the template is no Jinja, or there is none and the tokenizer has no chat markers.
    """
    source = getattr(tokenizer, "chat_template", None)
    # What was trained here and went through other programs' files is still what it was.
    if source is None or source == TEMPLATE or not isinstance(tokenizer, HuggingFaceTokenizer):
        return ChatML(tokenizer)
    return JinjaTemplate(tokenizer, source)


@dataclass(frozen=True)
class Written:
    """What a template wrote.

    Attributes:
        text: without marks.
        quoted: places at which what people typed spells a special token.
        spoken: places of what the assistant said.
    """

    text: str
    quoted: Sequence[tuple[int, int]]
    spoken: Sequence[tuple[int, int]]


class JinjaTemplate:
    """A template of the open ecosystem with its tokenizer. Implements `llm.types.ChatTemplate`.

    Args:
        tokenizer: whose special tokens the template writes.
        source: the template.

    Raises:
        ConfigError: the template is no Jinja.
    """

    def __init__(self, tokenizer: HuggingFaceTokenizer, source: str) -> None:
        self._tokenizer, self._source = tokenizer, source
        self._template = _compiled(source)
        self._says_itself = re.search(r"\{%[-+]?\s*generation\b", source) is not None
        names = sorted(tokenizer.special_ids, key=len, reverse=True)
        self._names = re.compile("|".join(map(re.escape, names)) or "(?!)")
        self._tokens = {key: tokenizer.config[key] for key in NAMED if tokenizer.config.get(key)}
        self._stop = tuple(dict.fromkeys([*self._closing(), *tokenizer.answer_end_ids]))

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids at which an answer ends: what closes the assistant's turn, what the tokenizer's files say."""
        return self._stop

    def render(
        self, conversation: Conversation, *, add_generation_prompt: bool = False
    ) -> tuple[list[int], list[bool]]:
        """Ids of `conversation` and a mask of the same length, True where the assistant wrote.

        The ids are those of transformers' ``apply_chat_template`` as long as nobody types a special token,
        but that an answer always begins with an id of its own: a prompt is how the whole begins.

        Args:
            conversation: turns in order.
            add_generation_prompt: end with the opening of an assistant's turn, for the model to go on from.

        Raises:
            ConfigError: a role is unknown, or the template refuses the conversation.
        """
        for role, _ in conversation:
            if role not in ROLES:
                raise ConfigError("role", role, f"unknown; one of {', '.join(ROLES)}")
        written = self._write(conversation, add_generation_prompt)
        spans = written.spoken if self._says_itself else self._turns(conversation, written)
        return self._ids(written, spans)

    def answer(self, text: str) -> list[int]:
        """Ids of one turn's text and what closes it: what follows a generation prompt."""
        ids, mask = self.render((PROBE[0], Message("assistant", text)))
        return [index for index, spoken in zip(ids, mask, strict=True) if spoken]

    # ------------------------------------------------------------------ text

    def _write(self, conversation: Conversation, add_generation_prompt: bool) -> Written:
        """Runs the template, without marks around what the assistant says where they change the text."""
        contents = [message.content for message in conversation]
        typed = "".join([*contents, self._source])
        free = [character for character in NONCHARACTERS if character not in typed][:4]
        if len(free) < 4:
            mend = "the conversation is full of code points that no text may contain (U+FDD0 and the like)"
            raise ConfigError("messages", f"{len(conversation)} turns", mend)
        opens, closes, begins, ends = free

        def run(turns: Sequence[str]) -> str:
            messages = [{"role": m.role, "content": t} for m, t in zip(conversation, turns, strict=True)]
            return self._run(messages, add_generation_prompt, begins, ends)

        quoted = [self._names.sub(rf"{opens}\g<0>{closes}", content) for content in contents]
        whole = run(quoted)
        if not self._says_itself and any(message.role == "assistant" for message in conversation):
            marked = run(
                [
                    _around(content, begins, ends) if message.role == "assistant" else content
                    for message, content in zip(conversation, quoted, strict=True)
                ]
            )
            if marked.replace(begins, "").replace(ends, "") == whole:
                whole = marked
            else:
                said = [m.content.strip() for m in conversation if m.role == "assistant"]
                whole = _found(whole, said, begins, ends)
        return self._read_back(whole, free)

    def _run(
        self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool, begins: str, ends: str
    ) -> str:
        try:
            text: str = self._template.render(
                messages=messages,
                add_generation_prompt=add_generation_prompt,
                tools=None,
                documents=None,
                **self._tokens,
                __marks=(begins, ends),
            )
        except Exception as error:  # code from a file can fail in any way
            mend = f"its chat template cannot write this conversation: {_one_line(error)}"
            raise ConfigError("tokenizer", "chat_template", mend) from error
        return text

    def _read_back(self, marked: str, marks: Sequence[str]) -> Written:
        opens, closes, begins, ends = marks
        parts: list[str] = []
        quoted: list[tuple[int, int]] = []
        spoken: list[tuple[int, int]] = []
        began: dict[str, int] = {}
        place = 0
        for part in re.split(f"([{''.join(marks)}])", marked):
            if part in (opens, begins):
                began[part] = place
            elif part == closes:
                start = began.pop(opens, place)
                # A template may cut a text in two at a special token; then the marks stand apart.
                if self._names.fullmatch("".join(parts)[start:]):
                    quoted.append((start, place))
            elif part == ends:
                spoken.append((began.pop(begins, place), place))
            else:
                parts.append(part)
                place += len(part)
        return Written("".join(parts), quoted, spoken)

    def _turns(self, conversation: Conversation, written: Written) -> list[tuple[int, int]]:
        """The places of the assistant's turns: from the end of the prompt to what closes the turn."""
        said = [number for number, message in enumerate(conversation) if message.role == "assistant"]
        turns = []
        for order, (start, end) in enumerate(written.spoken):
            if len(said) == len(written.spoken):
                content = conversation[said[order]].content
                lead = content[: len(content) - len(content.lstrip())]
                trail = content[len(content.rstrip()) :]
                start -= len(lead) if written.text[:start].endswith(lead) else 0
                end += len(trail) if written.text.startswith(trail, end) else 0
                start = self._prompt_end(conversation[: said[order]], written.text, start)
            closing = re.compile(rf"\s*({self._names.pattern})").match(written.text, end)
            if closing and self._tokenizer.special_ids[closing[1]] in self._stop:
                end = closing.end()
            turns.append((start, end))
        return turns

    def _prompt_end(self, before: Conversation, text: str, start: int) -> int:
        """Where a model asked to answer `before` would have begun, if that is what `text` begins with."""
        if not before:
            return start
        try:
            prompt = self._write(before, add_generation_prompt=True).text
        except ConfigError:
            return start
        return len(prompt) if len(prompt) <= start and text.startswith(prompt) else start

    def _closing(self) -> list[int]:
        """The special token that the template puts behind an answer."""
        try:
            written = self._write(PROBE, add_generation_prompt=False)
        except ConfigError:  # it wants other conversations than this
            return []
        after = [end for _, end in written.spoken]
        match = self._names.search(written.text, after[-1]) if after else None
        if self._says_itself and after:  # what closes the turn is part of what the assistant says
            inside = list(self._names.finditer(written.text, written.spoken[-1][0], after[-1]))
            match = inside[-1] if inside else match
        if match is None or (match.start() > after[-1] and written.text[after[-1] : match.start()].strip()):
            return []
        return [self._tokenizer.special_ids[match[0]]]

    # ------------------------------------------------------------------ ids

    def _ids(self, written: Written, spans: Sequence[tuple[int, int]]) -> tuple[list[int], list[bool]]:
        ids: list[int] = []
        mask: list[bool] = []
        cuts = sorted({place for span in spans for place in span})

        def spoken(place: int) -> bool:
            return any(start <= place < end for start, end in spans)

        place, after = 0, "start"
        for start, end, index in [*self._specials(written), (len(written.text), 0, None)]:
            bounds = [place, *(cut for cut in cuts if place < cut < start), start]
            for left, right in pairwise(bounds):
                if left < right:
                    new = self._encoded(written.text[left:right], after)
                    ids += new
                    mask += [spoken(left)] * len(new)
                    after = "text"
            if index is not None:
                ids.append(index)
                mask.append(spoken(start))
                place, after = end, "special"
        return ids, mask

    def _encoded(self, text: str, after: str) -> list[int]:
        if after == "start":
            return self._tokenizer.encode(text)
        if after == "special":
            return self._tokenizer.after_special(text)
        return self._tokenizer.continued(text)

    def _specials(self, written: Written) -> Iterator[tuple[int, int, int]]:
        """The special tokens that the template wrote: start, end (with the white space they take) and id."""
        place = taken = 0
        text = written.text
        while match := self._names.search(text, place):
            start, end = match.span()
            if any(left < end and start < right for left, right in written.quoted):
                place = start + 1
                continue
            left, right = self._tokenizer.paddings.get(match[0], (False, False))
            if left:
                start = max(taken, len(text[:start].rstrip()))
            if right:
                end += len(text[end:]) - len(text[end:].lstrip())
            yield start, end, self._tokenizer.special_ids[match[0]]
            place = taken = end


def _around(content: str, begins: str, ends: str) -> str:
    """Marks inside of the white space around `content`, so that a template can trim it."""
    inner = content.strip()
    if not inner:
        return begins + ends + content
    start = content.index(inner)
    return content[:start] + begins + inner + ends + content[start + len(inner) :]


def _found(whole: str, said: Sequence[str], begins: str, ends: str) -> str:
    """Marks around what the assistant said where it stands in `whole`, in order."""
    place = 0
    for content in said:
        start = whole.find(content, place)
        if content and start >= 0:
            marked = whole[:start] + begins + content + ends
            whole, place = marked + whole[start + len(content) :], len(marked)
    return whole


# ----------------------------------------------------------------------------- Jinja


def _compiled(source: str) -> Any:
    """The template in the surroundings that transformers gives it.

    Raises:
        ConfigError: it is no Jinja.
    """
    import jinja2
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """``{% generation %}``: what the assistant says, in templates that tell."""

        tags = {"generation"}  # noqa: RUF012  (jinja's own declaration)

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            marks = nodes.ContextReference()
            return nodes.CallBlock(self.call_method("_marked", [marks]), [], [], body).set_lineno(line)

        def _marked(self, context: Any, caller: Any) -> str:
            begins, ends = context.get("__marks")
            return f"{begins}{caller()}{ends}"

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return environment.from_string(source)
    except jinja2.TemplateError as error:
        mend = f"its chat template is not valid Jinja: {_one_line(error)}"
        raise ConfigError("tokenizer", "chat_template", mend) from error


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers has it: Jinja's own filter escapes what HTML would read."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: str) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
