"""Conversations that go on: history, commands, a context that fills up and says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rung.data.chat_template import CHATML, CHATML_TOKENS, ChatTemplate
from rung.data.conversations import Message, read_conversations
from rung.data.special_tokens import with_special_tokens
from rung.data.tokenizer import train_tokenizer
from rung.errors import DataError, GenerationError, TokenizerError, UsageError
from rung.generation.engine import Engine
from rung.generation.options import SamplingOptions
from rung.nets.decoder import CausalLM
from rung.nets.decoder_config import DecoderConfig
from rung.tasks.chat.session import ChatSession
from rung.tasks.chat.talking import Talker
from rung.tasks.language_model import LanguageModel

CONTEXT = 160
OPTIONS = SamplingOptions(temperature=1.0, max_tokens=12, seed=1)


@pytest.fixture(scope="module")
def talker() -> Talker:
    config = DecoderConfig(
        vocab_size=272,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=CONTEXT,
    )
    net = CausalLM(config, generator=torch.Generator().manual_seed(0))
    tokenizer = with_special_tokens(train_tokenizer(["x"], kind="byte", vocab_size=257), CHATML_TOKENS)
    return Talker(Engine(net, tokenizer), tokenizer, ChatTemplate(CHATML))


@pytest.fixture
def session(talker: Talker) -> ChatSession:
    return ChatSession(talker, OPTIONS)


def say(session: ChatSession, text: str) -> str:
    asked = session.ask(text)
    streamed = "".join(asked.stream())
    answer = asked.keep()
    assert answer.text == streamed.strip()
    assert len(answer.token_ids) <= OPTIONS.max_tokens
    return answer.text


def test_turns_are_kept_in_order(session: ChatSession) -> None:
    session.set_system("be brief")
    first, second = say(session, "one"), say(session, "two")
    assert [(m.role, m.content) for m in session.messages] == [
        ("system", "be brief"),
        ("user", "one"),
        ("assistant", first),
        ("user", "two"),
        ("assistant", second),
    ]
    session.set_system("be long")
    assert session.system == "be long"
    assert len(session.messages) == 5
    session.reset()
    assert session.messages == [Message("system", "be long")]
    session.set_system("")
    assert session.messages == []
    assert session.tokens == 0


def test_an_answer_is_given_anew_with_another_draw(session: ChatSession) -> None:
    with pytest.raises(UsageError, match="no answer"):
        session.regenerate()
    first = say(session, "one")
    again = session.regenerate()
    assert "".join(again.stream()).strip() == again.keep().text != first
    assert len(session.messages) == 2
    repeated = ChatSession(session.talker, OPTIONS)
    assert say(repeated, "one") == first


def test_the_oldest_turns_go_when_the_context_is_full_and_it_is_said(session: ChatSession) -> None:
    session.set_system("s")
    dropped = []
    for number in range(8):
        asked = session.ask(f"message {number} of a long talk")
        assert len(asked.prompt.token_ids) <= CONTEXT - OPTIONS.max_tokens
        list(asked.stream())
        asked.keep()
        dropped.append(asked.dropped)
    assert dropped[0] == 0
    assert dropped == sorted(dropped)
    assert dropped[-1] > 0
    assert all(count % 2 == 0 for count in dropped)
    assert len(session.messages) == 17  # nothing is forgotten here, only not shown to the network
    whole = session.talker.tokenizer.decode(asked.prompt.token_ids)
    assert whole.startswith("system\ns\nuser\n")
    assert "message 0" not in whole
    assert "message 7" in whole


def test_a_message_that_never_fits_is_refused_and_not_kept(session: ChatSession) -> None:
    say(session, "hello")
    kept = list(session.messages)
    with pytest.raises(GenerationError, match="has no room"):
        session.ask("x" * CONTEXT)
    with pytest.raises(DataError, match="is empty"):
        session.ask("   ")
    assert session.messages == kept


def test_an_answer_that_is_broken_off_stays_as_far_as_it_came(session: ChatSession) -> None:
    asked = session.ask("hello")
    pieces = asked.stream()
    begun = next(pieces)
    answer = asked.keep()
    assert answer.text == begun.strip()
    silent = session.ask("and?")
    before = list(session.messages)
    assert silent.keep().text == ""
    assert session.messages == before


def test_save_and_load(session: ChatSession, talker: Talker, tmp_path: Path) -> None:
    session.set_system("be")
    path = tmp_path / "talk.jsonl"
    with pytest.raises(UsageError, match="nothing has been said"):
        session.save(path)
    say(session, "one")
    session.save(path)
    assert read_conversations([path]).items[0].messages == tuple(session.messages)
    with pytest.raises(UsageError, match="exists already"):
        session.save(path)
    other = ChatSession(talker, OPTIONS)
    other.load(path)
    assert other.messages == session.messages
    for content in (
        "nonsense",
        "[]",
        '{"messages": 3}',
        '{"messages": [{"role": "robot", "content": "x"}]}',
        "[" * 99_999,
    ):
        (tmp_path / "bad").write_text(content)
        with pytest.raises(DataError):
            other.load(tmp_path / "bad")
    with pytest.raises(DataError, match="no saved conversation"):
        other.load(tmp_path / "absent")
    assert other.messages == session.messages


def test_the_python_interface(talker: Talker, tmp_path: Path) -> None:
    model = LanguageModel(tmp_path, None, talker.tokenizer)  # type: ignore[arg-type]
    model._engine = talker.engine
    with pytest.raises(TokenizerError, match="no chat template"):
        model.chat([{"role": "user", "content": "hi"}])
    (tmp_path / "chat_template.jinja").write_text(CHATML)
    answer = model.chat([{"role": "user", "content": "hi"}], max_tokens=5, temperature=0)
    assert answer == talker.answer([Message("user", "hi")], replace(OPTIONS, temperature=0, max_tokens=5))
    assert answer.message == Message("assistant", answer.text)
    with pytest.raises(DataError, match="last turn"):
        model.chat([{"role": "system", "content": "hi"}])
    with pytest.raises(DataError, match="not known"):
        model.chat([{"role": "robot", "content": "hi"}])


def test_a_model_without_the_templates_tokens_is_refused(talker: Talker) -> None:
    bare = train_tokenizer(["x"], kind="byte", vocab_size=257)
    with pytest.raises(TokenizerError, match=r"<\|im_start\|>"):
        Talker(talker.engine, bare, talker.template)


def test_a_turn_reads_what_is_new_and_answers_the_same(talker: Talker) -> None:
    """Ten turns, the oldest dropped on the way, one answered anew, one edited: as if all were read from the start."""
    kept, anew = ChatSession(talker, OPTIONS), ChatSession(talker, OPTIONS)
    anew.prefixes = None
    assert kept.prefixes is not None
    tokens = [0]
    for number in range(10):
        reused = kept.prefixes.tokens_reused
        for session in (kept, anew):
            say(session, f"turn {number}")
        assert kept.last is not None
        assert kept.last == anew.last
        if not kept.last.dropped:
            assert kept.prefixes.tokens_reused - reused >= tokens[-1]  # at least the prompt of the turn before
        tokens.append(kept.last.prompt_tokens)
    assert kept.last.dropped > 0
    assert kept.prefixes.tokens_reused + kept.prefixes.tokens_read == sum(tokens)
    for session in (kept, anew):
        "".join(session.regenerate().stream())
        session.messages[-2:] = [Message("user", "an edited turn"), Message("assistant", "so it is")]
        say(session, "and now?")
    assert kept.last == anew.last
    kept.reset()
    assert kept.prefixes.tokens_reused == 0
