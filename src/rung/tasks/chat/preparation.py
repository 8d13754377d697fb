"""From a base and files of conversations to rows of tokens: template, special tokens, split, packing."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from rung.data.chat_template import (
    CHATML,
    CHATML_TOKENS,
    ChatTemplate,
    end_of_turn,
    find_template,
    named_special_tokens,
    require_special_tokens,
)
from rung.data.conversation_split import PARTS, ConversationSplit, split_conversations
from rung.data.conversations import Conversations, read_conversations
from rung.data.packing import EncodedConversations, PackedRows, encode_conversations
from rung.data.special_tokens import with_special_tokens
from rung.data.tokenizer import Tokenizer
from rung.errors import TokenizerError, UsageError
from rung.nets.architectures import FAMILIES, unsupported
from rung.nets.decoder import CausalLM
from rung.nets.pretrained import read_config_file
from rung.nets.vocabulary_growth import grow_vocabulary
from rung.progress import Progress
from rung.tasks.bases import resolve_base
from rung.tasks.chat.tuning_recipe import AnyChatRecipe, ChatRecipe
from rung.tasks.tuning.folder import open_language_model
from rung.tasks.tuning.method import TuningMethod

_LEAST_CONTEXT, _CONTEXT_MULTIPLE = 512, 64
_CHATML = "chatml"


@dataclass(frozen=True)
class ChatBase:
    """A base with what it takes to talk: a template, and a tokenizer with the template's special tokens.

    `known_tokens`: what the base's own tokenizer has; tokens from there on are new to the network.
    """

    folder: Path
    tokenizer: Tokenizer
    template: ChatTemplate
    known_tokens: int

    @property
    def has_new_tokens(self) -> bool:
        """Whether the network has to learn special tokens that it has never seen."""
        return self.tokenizer.vocab_size > self.known_tokens

    @cached_property
    def end_of_turn(self) -> int:
        """The token that ends an answer."""
        return end_of_turn(self.template, self.tokenizer)

    @cached_property
    def context_length(self) -> int:
        """The most tokens that the network reads."""
        config = read_config_file(self.folder)
        return int(config.get("max_position_embeddings") or config["n_positions"])

    def network(self) -> CausalLM:
        """The network in float32, with rows for new tokens."""
        net = open_language_model(self.folder)
        grown: CausalLM = grow_vocabulary(net, known=self.known_tokens, wanted=self.tokenizer.vocab_size)
        return grown


def open_base(base: str | Path, *, template: str | None = None) -> ChatBase:
    """A base for chat: its own template, else ChatML; or the one that `template` names ("chatml", or a file).

    ChatML brings its special tokens along; a base's own template must find its tokens in the tokenizer.
    Raises UsageError when it is no decoder, TokenizerError or RunFolderError.
    """
    folder = resolve_base(base)
    _require_decoder(folder)
    tokenizer = Tokenizer.load(folder)
    own = find_template(folder)
    source = _read_template(Path(template)) if template not in (None, _CHATML) else own
    known = tokenizer.vocab_size
    if source is None or template == _CHATML:
        source, tokenizer = CHATML, with_special_tokens(tokenizer, CHATML_TOKENS)
    where = template or str(folder)
    made = ChatTemplate(source, named_special_tokens(folder), where=where)
    require_special_tokens(made, tokenizer)
    return ChatBase(folder, tokenizer, made, known)


def _require_decoder(folder: Path) -> None:
    """Raise UsageError for a network that does not write one token after the other."""
    kind = read_config_file(folder).get("model_type")
    if kind in FAMILIES["decoders"]:
        return
    family = next((family for family, kinds in FAMILIES.items() if kind in kinds), None)
    if family is None:
        raise unsupported(str(kind), str(folder))
    raise UsageError(
        f"a network of the kind {kind} ({family}) cannot be tuned to chat",
        where=str(folder),
        hint="give a decoder: rung train TEXT, or an open one such as smollm2",
    )


def _read_template(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(
            f"the chat template cannot be read ({error})", where=str(path), hint="name a file of Jinja, or chatml"
        ) from error


@dataclass(frozen=True)
class PreparedChat:
    """What a run is made of: the base, the split, and each part as packed rows."""

    base: ChatBase
    split: ConversationSplit
    encoded: dict[str, EncodedConversations]
    rows: dict[str, PackedRows]
    context_length: int

    @property
    def remarks(self) -> list[str]:
        """Sentences about what was left out or cut."""
        told = [f"{part}: {remark}" for part in PARTS for remark in self.encoded[part].remarks]
        return [*self.split.remarks, *told]

    @cached_property
    def sha256(self) -> str:
        """Hash over all parts, the template and the tokenizer: the identity of what is learned and measured."""
        parts = [self.split[part].sha256 for part in PARTS]
        template = hashlib.sha256(self.base.template.source.encode()).hexdigest()
        return hashlib.sha256("\n".join([*parts, template, self.base.tokenizer.sha256]).encode()).hexdigest()

    def kept(self, part: str) -> Conversations:
        """The conversations of a part that became examples, in their order."""
        return self.split[part].take(self.encoded[part].kept)


def read_parts(recipe: ChatRecipe, progress: Progress) -> ConversationSplit:
    """The conversations of a recipe in three parts."""
    data = recipe.data
    valid, test = (read_conversations(files, progress=progress) if files else None for files in (data.valid, data.test))
    return split_conversations(
        read_conversations(data.files, progress=progress),
        valid=valid,
        test=test,
        seed=recipe.seed,
        valid_share=data.valid_share,
        test_share=data.test_share,
    )


def prepare(recipe: ChatRecipe, progress: Progress) -> tuple[ChatRecipe, PreparedChat]:
    """Read, split, render and pack; and the recipe with the date and the context length it was done with.

    Raises DataError, TokenizerError, RunFolderError, UsageError.
    """
    recipe, base = dated(recipe, open_base(recipe.base, template=recipe.data.template))
    require_learnable(base, recipe.tuning)
    split = read_parts(recipe, progress)
    limit = min(recipe.training.context_length or base.context_length, base.context_length)
    encoded = {
        part: encode_conversations(
            split[part].items,
            base.template,
            base.tokenizer,
            context_length=limit,
            base_length=base.context_length,
            overlong=recipe.data.overlong,
            progress=progress,
        )
        for part in PARTS
    }
    context = recipe.training.context_length or _context(encoded, limit)
    pad = base.tokenizer.eos_token_id
    rows = {part: PackedRows(one.examples, context_length=context, pad_token_id=pad) for part, one in encoded.items()}
    return recipe.with_overrides({"training.context_length": context}), PreparedChat(
        base, split, encoded, rows, context
    )


def require_learnable(base: ChatBase, method: TuningMethod) -> None:
    """Raise UsageError where new special tokens would stay as they are drawn."""
    if base.has_new_tokens and method.kind == "lora":
        raise UsageError(
            "this base does not know the special tokens of the chat template, and LoRA trains no embeddings",
            where=str(base.folder),
            hint="tune the whole network (leave --lora out), or give a base that was made for chat",
        )


def dated(recipe: AnyChatRecipe, base: ChatBase) -> tuple[AnyChatRecipe, ChatBase]:
    """A template that writes the date is told the same one whenever the run goes on."""
    if not base.template.tells_the_date:
        return recipe, base
    if recipe.data.now is None:
        now = datetime.now(UTC).replace(tzinfo=None)
        recipe = recipe.with_overrides({"data.now": now.isoformat(timespec="seconds")})
    return recipe, replace(base, template=base.template.at(datetime.fromisoformat(recipe.data.now or "")))


def _context(encoded: dict[str, EncodedConversations], limit: int) -> int:
    """Rows as long as the longest conversation, or 512 tokens, so that several short ones share one."""
    longest = max(int(one.examples.lengths.max()) - 1 for one in encoded.values())
    rounded = math.ceil(max(longest, _LEAST_CONTEXT) / _CONTEXT_MULTIPLE) * _CONTEXT_MULTIPLE
    return min(rounded, limit)
