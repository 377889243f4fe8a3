"""ChatML: how a conversation becomes ids, and which of them the assistant wrote.

::

    <|im_start|>user\\n
    What is 2 + 2?<|im_end|>\\n
    <|im_start|>assistant\\n        <- a generation prompt ends here
    4<|im_end|>\\n
    ^^^^^^^^^^                      <- the only part with loss: its text and its closing marker

The markers are special ids, the text between them is plain text (OpenAI's ChatML, as in Qwen and SmolLM).
"""

from __future__ import annotations

from collections.abc import Mapping

from llm.tokenizers.base import END_OF_TEXT, IM_END, IM_START, special_ids
from llm.types import ConfigError, Conversation, Tokenizer

ROLES = ("system", "user", "assistant")

TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}"
    "{{ '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""`ChatML` in Jinja, for the files that other programs read."""


class ChatML:
    """Renders conversations with one tokenizer. Implements `llm.types.ChatTemplate`.

    Raises:
        ConfigError: when the tokenizer has no chat markers.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        found = special_ids(tokenizer)
        if IM_START not in found or IM_END not in found:
            mend = (
                f"has no ids for {IM_START} and {IM_END}, so it cannot chat; use tokenizer=bpe or "
                "tokenizer=byte, or tokenizer=character with tokenizer.special_tokens=true"
            )
            raise ConfigError("tokenizer", type(tokenizer).__name__, mend)
        self._tokenizer = tokenizer
        self._end = found[IM_END]
        self._stop = stop_ids(found)
        # Each part is encoded alone, so that a prompt's ids are always the start of the whole
        # conversation's ids: what the model reads when it answers is what it read when it learned.
        self._headers = {role: [found[IM_START], *tokenizer.encode(f"{role}\n")] for role in ROLES}
        self._newline = tokenizer.encode("\n")

    def render(
        self, conversation: Conversation, *, add_generation_prompt: bool = False
    ) -> tuple[list[int], list[bool]]:
        """Ids of `conversation` and a mask of the same length, True where the assistant wrote.

        Args:
            conversation: turns in order.
            add_generation_prompt: end with the opening of an assistant's turn, for the model to go on from.
        """
        ids: list[int] = []
        mask: list[bool] = []
        for role, content in conversation:
            if role not in self._headers:
                raise ConfigError("role", role, f"unknown; one of {', '.join(ROLES)}")
            header, body = self._headers[role], self.answer(content)
            ids += [*header, *body, *self._newline]
            mask += [False] * len(header) + [role == "assistant"] * len(body) + [False] * len(self._newline)
        if add_generation_prompt:
            ids += self._headers["assistant"]
            mask += [False] * len(self._headers["assistant"])
        return ids, mask

    def answer(self, text: str) -> list[int]:
        """Ids of one turn's text and its closing marker: what follows a generation prompt."""
        return [*self._tokenizer.encode(text), self._end]

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids at which an answer ends: the closing marker, and the end of a document."""
        return self._stop


def stop_ids(found: Mapping[str, int]) -> tuple[int, ...]:
    """Ids at which an answer ends, of special tokens: ChatML's closing marker, and a document's end."""
    return tuple(found[name] for name in (IM_END, END_OF_TEXT) if name in found)


def chat_source(found: Mapping[str, int]) -> str | None:
    """The Jinja template of a tokenizer that was trained here; None when it has no chat markers."""
    return TEMPLATE if IM_START in found and IM_END in found else None
