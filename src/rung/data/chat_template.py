"""Chat templates of model folders: messages to text, to tokens, and which of the tokens the assistant says.

The template is Jinja, as every model folder carries it, rendered by `rung.data.template_sandbox`: within limits of work
and size, and with transformers' extensions. Text and tokens equal `tokenizer.apply_chat_template` of transformers, but
for two things that are meant: a message that spells a special token gets the tokens of its characters (transformers:
`sanitize_control_tokens=True`), and what the assistant says begins with a token of its own, because that is how it will
be when the model writes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from rung.data.conversations import Message
from rung.data.special_tokens import encode_with_special, special_tokens_of
from rung.data.tokenizer import Tokenizer
from rung.errors import DataError, TokenizerError

if TYPE_CHECKING:
    import jinja2

    from rung.data.template_sandbox import Sandbox

TEMPLATE_FILE = "chat_template.jinja"
_CONFIG = "tokenizer_config.json"
_SPECIAL_NAMES = ("bos_token", "eos_token", "pad_token", "unk_token")
_LONGEST_TEMPLATE = 200_000  # characters; the longest known are about 20,000
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
CHATML = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['role'] == 'assistant' %}
{%- generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}
{{- '\\n' }}
{%- else %}
{{- message['content'] + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
"""ChatML as Qwen and SmolLM2 use it, without a system message of its own and with the assistant's words marked."""


@dataclass(frozen=True)
class RenderedTokens:
    """A conversation as tokens. `assistant[i]`: whether the assistant says `ids[i]`, its end of turn included."""

    ids: list[int]
    assistant: list[bool]

    def __len__(self) -> int:
        return len(self.ids)


class ChatTemplate:
    """One template, compiled once; it may be used by several threads."""

    def __init__(
        self,
        source: str,
        special_tokens: Mapping[str, str] | None = None,
        *,
        now: datetime | None = None,
        where: str = "the chat template",
    ) -> None:
        """Compile `source`. `special_tokens`: what it may ask for by name (bos_token, eos_token, ...).

        `now` is what templates are told that write today's date, so that training data stay the same tomorrow; by
        default the time of rendering. Raises TokenizerError when the template is broken or wants what is forbidden.
        """
        import jinja2

        from rung.data.template_sandbox import Sandbox

        self.source, self.where = source, where
        self._special_tokens = dict(special_tokens or {})
        self._lock = Lock()  # the sandbox has one budget
        if len(source) > _LONGEST_TEMPLATE:
            raise TokenizerError(f"the chat template has {len(source):,} characters", where=where, hint=_TEMPLATE_HINT)
        self._sandbox: Sandbox = Sandbox(now=now)
        try:
            self._template: jinja2.Template = self._sandbox.from_string(source)
        # jinja2 leaves to Python's compiler what is wrong with `break` and with deep nesting, and to `int` long numbers
        except (jinja2.TemplateError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = error.lineno if isinstance(error, jinja2.TemplateSyntaxError) else None
            raise TokenizerError(
                f"the chat template cannot be used: {error or type(error).__name__}",
                where=f"{where}, line {line}" if line else where,
                hint=_TEMPLATE_HINT,
            ) from error

    @classmethod
    def load(cls, folder: Path, *, now: datetime | None = None) -> ChatTemplate:
        """The template of a model folder. TokenizerError when it has none."""
        found = find_template(folder)
        if found is None:
            raise TokenizerError(
                "this model has no chat template",
                where=str(folder),
                hint="it was not made for conversations: tune it first (rung tune BASE DATA --task chat)",
            )
        return cls(found, named_special_tokens(folder), now=now, where=str(folder))

    def at(self, now: datetime) -> ChatTemplate:
        """The same template at another time."""
        return ChatTemplate(self.source, self._special_tokens, now=now, where=self.where)

    @property
    def tells_the_date(self) -> bool:
        """Whether it writes the date or time into what it renders."""
        return "strftime_now" in self.source

    @cached_property
    def marks_assistant(self) -> bool:
        """Whether the template itself says what is the assistant's, by `{% generation %}`."""
        return re.search(r"\{%-?\s*generation\s*-?%\}", self.source) is not None

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """The text of `messages`, ready to be answered with `add_generation_prompt`.

        Raises DataError when the template refuses them, TokenizerError when it is broken or exceeds its limits.
        """
        return _without(_MARKS, self._rendered(messages, add_generation_prompt))

    def render_prompt(self, messages: Sequence[Message], tokenizer: Tokenizer) -> list[int]:
        """The tokens of `messages`, ready to be answered. Errors as in `render`."""
        rendered = self._rendered(_guarded(messages, tokenizer), add_generation_prompt=True)
        return _encode(_without(_ASSISTANT_MARKS, rendered), tokenizer)

    def render_tokens(self, messages: Sequence[Message], tokenizer: Tokenizer) -> RenderedTokens:
        """The tokens of `messages`, and which of them the assistant says: its words and its end of turn.

        Told by the template's own marks; or else by rendering what comes before each answer and what ends with it, and
        by proof that both begin what follows. DataError when they do not, besides the errors of `render`.
        """
        guarded = _guarded(messages, tokenizer)
        rendered = self._rendered(guarded, add_generation_prompt=False)
        pieces = _marked_pieces(rendered) if self.marks_assistant else self._proved_pieces(rendered, guarded)
        ids: list[int] = []
        assistant: list[bool] = []
        for text, is_answer in pieces:
            piece = _encode(text, tokenizer)
            said = _through_end(piece, tokenizer) if is_answer else 0
            ids += piece
            assistant += [True] * said + [False] * (len(piece) - said)
        return RenderedTokens(ids, assistant)

    def render_answer(self, prompt: Sequence[Message], answer: str, tokenizer: Tokenizer) -> RenderedTokens:
        """The tokens of `prompt` and one answer to it, which alone counts as the assistant's. Errors as above."""
        rendered = self.render_tokens([*prompt, Message("assistant", answer)], tokenizer)
        said = [place for place, is_said in enumerate(rendered.assistant) if is_said]
        first = max((place for place in said if place == 0 or not rendered.assistant[place - 1]), default=len(rendered))
        return RenderedTokens(rendered.ids, [place >= first and one for place, one in enumerate(rendered.assistant)])

    def _proved_pieces(self, rendered: str, messages: Sequence[Message]) -> list[tuple[str, bool]]:
        borders = [0]
        for number, message in enumerate(messages):
            if message.role == "assistant":
                before = self._rendered(messages[:number], add_generation_prompt=True)
                after = self._rendered(messages[: number + 1], add_generation_prompt=False)
                if not (after.startswith(before) and rendered.startswith(after)):
                    raise DataError(
                        f"this chat template renders turn {number + 1} differently when other turns follow, so which "
                        "tokens are the assistant's cannot be told",
                        where=self.where,
                        hint="give a template with {% generation %} marks, or conversations of one answer each",
                    )
                borders += [len(before), len(after)]
        borders.append(len(rendered))
        return [(rendered[start:stop], number % 2 == 1) for number, (start, stop) in enumerate(pairwise(borders))]

    def _rendered(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        """The text with stand-ins still in it."""
        import jinja2

        values = {
            "messages": [message.to_json() for message in messages],
            "add_generation_prompt": add_generation_prompt,
            "tools": None,
            "documents": None,
            **self._special_tokens,
        }
        try:
            with self._lock:
                return self._sandbox.render(self._template, values)
        except (
            TypeError,
            ValueError,
            ArithmeticError,
            LookupError,
            AttributeError,
            RecursionError,
            MemoryError,
        ) as error:
            problem = f"the chat template fails: {type(error).__name__}: {error}"
            raise TokenizerError(problem, where=self.where, hint=_TEMPLATE_HINT) from error
        except jinja2.TemplateError as error:
            if type(error) is jinja2.TemplateError:  # its own raise_exception
                raise DataError(
                    f"the chat template refuses these messages: {error.message}",
                    where=self.where,
                    hint="some templates know no system message, or want user and assistant strictly by turns",
                ) from error
            problem = f"the chat template was stopped: {error.message}"
            raise TokenizerError(problem, where=self.where, hint=_TEMPLATE_HINT) from error


# What a template's own operations raise.
_OWN_ERRORS = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError, MemoryError)
_TEMPLATE_HINT = "give the folder a sound template (chat_template in tokenizer_config.json), or use another model"


def find_template(folder: Path) -> str | None:
    """The text of a model folder's chat template: of `chat_template.jinja` or `tokenizer_config.json`.

    Of several named ones in the configuration, that called "default". TokenizerError when it is damaged.
    """
    if (folder / TEMPLATE_FILE).is_file():
        return _read(folder / TEMPLATE_FILE)
    found = _config(folder).get("chat_template")
    if isinstance(found, list):  # [{"name": "default", "template": "..."}, {"name": "tool_use", ...}]
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, Mapping)}
        found = named.get("default")
    if found is not None and not isinstance(found, str):
        raise TokenizerError("chat_template is not a text", where=str(folder / _CONFIG), hint=_TEMPLATE_HINT)
    return found


def named_special_tokens(folder: Path) -> dict[str, str]:
    """The special tokens that `tokenizer_config.json` gives names to: bos_token and so on."""
    config = _config(folder)
    found = {name: config.get(name) for name in _SPECIAL_NAMES}
    texts = {name: one.get("content") if isinstance(one, Mapping) else one for name, one in found.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def _config(folder: Path) -> dict[str, Any]:
    path = folder / _CONFIG
    if not path.is_file():
        return {}
    try:
        value = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{_CONFIG} is not JSON: {error}", where=str(path), hint=_TEMPLATE_HINT) from error
    return value if isinstance(value, dict) else {}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"{path.name} cannot be read: {error}", where=str(path), hint=_TEMPLATE_HINT) from error


def require_special_tokens(template: ChatTemplate, tokenizer: Tokenizer) -> None:
    """Raise TokenizerError naming the special tokens that `template` writes and `tokenizer` does not have.

    It would spell them in pieces, and the network would see turns end in a way it has never seen.
    """
    probe = (Message("user", "a"), Message("assistant", "b"))
    written = template.render(probe) + template.render(probe[:1], add_generation_prompt=True)
    missing = sorted(set(_LOOKS_SPECIAL.findall(written)) - special_tokens_of(tokenizer).ids.keys() - _PLAIN_ROLES)
    if missing:
        raise TokenizerError(
            f"the chat template writes {', '.join(missing)}, which are no special tokens of this tokenizer",
            where=template.where,
            hint="use the tokenizer that belongs to the template, or another template",
        )


def end_of_turn(template: ChatTemplate, tokenizer: Tokenizer) -> int:
    """The special token that ends an assistant's turn. TokenizerError when the template writes none."""
    probe = (Message("user", "a"), Message("assistant", "b"))
    rendered = template.render_tokens(probe, tokenizer)
    said = [token for token, is_answer in zip(rendered.ids, rendered.assistant, strict=True) if is_answer]
    if not said or tokenizer.token_bytes(said[-1]):
        raise TokenizerError(
            "the chat template ends the assistant's turn without a special token, so an answer would never end",
            where=template.where,
            hint="use a template that writes one, such as ChatML's <|im_end|>",
        )
    return said[-1]


# Zephyr's family writes these as plain text; what ends a turn is another matter, see `end_of_turn`.
_PLAIN_ROLES = {"<|system|>", "<|user|>", "<|assistant|>"}
_LOOKS_SPECIAL = re.compile(r"<\|[^|<>\s]{1,60}\|>|<(?:start|end)_of_turn>|</?s>|<(?:bos|eos)>")


# Stand-ins ------------------------------------------------------------------------------------------------------------

# As in `template_sandbox`, whose import would cost jinja2.
_BEGIN, _END, _BREAK = "\ufdd0", "\ufdd1", "\ufdd2"
_ASSISTANT_MARKS = re.compile(f"[{_BEGIN}{_END}]")
_MARKS = re.compile(f"[{_BEGIN}{_END}{_BREAK}]")


def _without(marks: re.Pattern[str], text: str) -> str:
    return marks.sub("", text)


def _guarded(messages: Sequence[Message], tokenizer: Tokenizer) -> list[Message]:
    """The messages with every spelling of a special token broken, so that only the template makes special tokens."""
    first_characters = special_tokens_of(tokenizer).first_characters
    guarded = []
    for number, message in enumerate(messages, start=1):
        if found := _MARKS.search(message.content):
            raise DataError(
                f"turn {number} holds the noncharacter U+{ord(found.group()):04X}, which no text may be exchanged with",
                hint="remove it",
            )
        guarded.append(Message(message.role, first_characters.sub(rf"\1{_BREAK}", message.content)))
    return guarded


def _marked_pieces(rendered: str) -> list[tuple[str, bool]]:
    """Stretches of text, and whether the assistant says them, by the marks in `rendered`."""
    marks = _ASSISTANT_MARKS.findall(rendered)
    if marks != [_BEGIN, _END] * (len(marks) // 2):
        raise TokenizerError("the {% generation %} marks of the chat template do not pair", hint=_TEMPLATE_HINT)
    return [(text, number % 2 == 1) for number, text in enumerate(_ASSISTANT_MARKS.split(rendered))]


def _encode(text: str, tokenizer: Tokenizer) -> list[int]:
    """The tokens of rendered text, special ones where the template wrote them."""
    return [token for piece in text.split(_BREAK) for token in encode_with_special(piece, tokenizer)]


def _through_end(ids: Sequence[int], tokenizer: Tokenizer) -> int:
    """How many tokens of an answer's stretch the model has to write: no white space after the end of turn."""
    specials = [place for place, token in enumerate(ids) if not tokenizer.token_bytes(token)]
    if specials and not tokenizer.decode(ids[specials[-1] :]).strip():
        return specials[-1] + 1
    return len(ids)
