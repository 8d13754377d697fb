"""Packed conversations: every one once, little padding, and none sees another."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rung.data.chat_template import CHATML, CHATML_TOKENS, ChatTemplate, RenderedTokens
from rung.data.conversations import Conversation, Message
from rung.data.pack import IGNORE_INDEX
from rung.data.packing import (
    HeldOutRows,
    Overlong,
    PackedRows,
    TokenExamples,
    TrainingRows,
    best_fit,
    encode_conversations,
)
from rung.data.special_tokens import with_special_tokens
from rung.data.tokenizer import Tokenizer, train_tokenizer
from rung.errors import DataError
from rung.nets.decoder import CausalLM, DecoderConfig

VOCABULARY, CONTEXT = 50, 24
lengths = st.lists(st.integers(2, CONTEXT + 1), min_size=1, max_size=40)


def examples(sizes: list[int]) -> TokenExamples:
    generator = np.random.default_rng(len(sizes))
    rows = [
        RenderedTokens(
            generator.integers(1, VOCABULARY, size).tolist(), [False, *(generator.random(size - 1) < 0.6).tolist()]
        )
        for size in sizes
    ]
    return TokenExamples.of(rows)


@given(st.lists(st.integers(1, 100), max_size=200))
def test_best_fit_places_every_item_once_within_the_capacity(sizes: list[int]) -> None:
    rows = best_fit(np.array(sizes, dtype=np.int64), 100)
    assert sorted(item for row in rows for item in row) == list(range(len(sizes)))
    filled = [sum(sizes[item] for item in row) for row in rows]
    assert all(total <= 100 for total in filled)
    # No two rows could have been one, so at most one of them is half full.
    assert sum(total <= 50 for total in filled) <= 1


def test_best_fit_takes_the_fullest_row_with_room() -> None:
    assert best_fit(np.array([60, 50, 40, 45]), 100) == [[0, 2], [1, 3]]
    with pytest.raises(ValueError, match="does not fit"):
        best_fit(np.array([101]), 100)


@given(lengths)
def test_rows_hold_every_target_once(sizes: list[int]) -> None:
    held = examples(sizes)
    packed = PackedRows(held, context_length=CONTEXT, pad_token_id=0)
    found: Counter[tuple[int, int]] = Counter()
    for number in range(len(packed)):
        batch = {name: one[0].tolist() for name, one in HeldOutRows(packed).batch(np.array([number])).items()}
        assert max(map(len, batch.values())) <= CONTEXT
        pairs = zip(batch["input_ids"], batch["labels"], strict=True)
        found.update(pair for pair in pairs if pair[1] != IGNORE_INDEX)
    wanted: Counter[tuple[int, int]] = Counter()
    for number in range(len(held)):
        example = held.example(number)
        steps = zip(example.ids, example.ids[1:], example.assistant[1:], strict=False)
        wanted.update((before, after) for before, after, is_learned in steps if is_learned)
    assert found == wanted
    assert found.total() == held.num_targets


def test_orders_are_stateless_and_cover_each_epoch() -> None:
    packed = PackedRows(examples([9] * 40), context_length=16, pad_token_id=0)
    training = TrainingRows(packed, seed=3)
    whole = training.batch(np.arange(2 * len(packed)))["input_ids"]
    single = torch.cat([training.batch(np.array([n]))["input_ids"] for n in range(2 * len(packed))])
    assert torch.equal(whole, single)
    first, second = (sorted(map(tuple, part.tolist())) for part in whole.chunk(2))
    assert first == second
    assert not torch.equal(*whole.chunk(2))


def random_net() -> CausalLM:
    config = DecoderConfig(
        vocab_size=VOCABULARY,
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=6,
        max_position_embeddings=CONTEXT,
    )
    generator = torch.Generator().manual_seed(1)
    net = CausalLM(config)
    for parameter in net.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator) + (parameter.ndim == 1)
    return net.eval()


@settings(max_examples=5)
@given(st.lists(st.integers(2, CONTEXT + 1), min_size=2, max_size=12))
def test_a_packed_conversation_has_the_logits_it_has_alone(sizes: list[int]) -> None:
    net, held = random_net(), examples(sizes)
    packed = PackedRows(held, context_length=CONTEXT, pad_token_id=0)
    batch = packed.collate(range(len(packed)))
    with torch.no_grad():
        together = net.lm_head(net.model(net.model.embed(batch["input_ids"]), batch["mask"]).hidden)
        for row, items in enumerate(packed.rows):
            for number, item in enumerate(items, start=1):
                ids = torch.tensor([held.example(item).ids[:-1]])
                alone = net.lm_head(net.model(net.model.embed(ids)).hidden)[0]
                torch.testing.assert_close(together[row][batch["mask"][row] == number], alone, atol=2e-5, rtol=1e-4)


# Too long -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return with_special_tokens(train_tokenizer(["some text"], kind="byte", vocab_size=257), CHATML_TOKENS)


def talk(prompt: int, answer: int) -> Conversation:
    return Conversation((Message("user", "p" * prompt), Message("assistant", "a" * answer)))


def test_long_conversations_are_refused_dropped_or_cut(tokenizer: Tokenizer) -> None:
    template, talks = ChatTemplate(CHATML), [talk(3, 4), talk(5, 200), talk(200, 5)]
    size = len(template.render_tokens(talks[0].messages, tokenizer))
    with pytest.raises(DataError, match=f"2 of 3 conversations have more tokens than a row's {size - 1}; the longest"):
        encode_conversations(talks, template, tokenizer, context_length=size - 1, base_length=99)
    dropped = encode_conversations(talks, template, tokenizer, context_length=size - 1, base_length=99, overlong="drop")
    assert dropped.kept == [0]
    assert dropped.remarks == [f"2 conversations of more than {size - 1} tokens were left out"]
    cut = encode_conversations(talks, template, tokenizer, context_length=size + 5, base_length=99, overlong="cut")
    assert cut.kept == [0, 1]
    assert cut.examples.lengths.tolist() == [size, size + 6]
    assert [remark.split()[0] for remark in cut.remarks] == ["2", "1"]


def test_a_conversation_that_just_fits_is_whole(tokenizer: Tokenizer) -> None:
    template = ChatTemplate(CHATML)
    size = len(template.render_tokens(talk(3, 4).messages, tokenizer))
    found = encode_conversations([talk(3, 4)], template, tokenizer, context_length=size - 1, base_length=99)
    assert found.examples.lengths.tolist() == [size]
    with pytest.raises(DataError):
        encode_conversations([talk(3, 4)], template, tokenizer, context_length=size - 2, base_length=99)


MARKS_NOTHING = "{% for message in messages %}{{ message.content }}{% endfor %}{% generation %}{% endgeneration %}"


@pytest.mark.parametrize(
    ("template", "overlong", "problem", "hint"),
    [
        (
            CHATML,
            "cut",
            "1 conversations of more than 40 tokens were cut to their beginning, before any answer",
            "shorter",
        ),
        (
            CHATML,
            "drop",
            "than 40 tokens were left out; the longest has",
            "or shorter conversations",
        ),
        (CHATML, "refuse", "1 of 1 conversations have more tokens than a row's 40", "data.overlong=drop or cut"),
        (
            MARKS_NOTHING,
            "cut",
            "the template marks none in these conversations",
            "the template's {% generation %} marks",
        ),
    ],
)
def test_nothing_to_learn_is_refused(
    template: str, overlong: Overlong, problem: str, hint: str, tokenizer: Tokenizer
) -> None:
    talks = [talk(3 if template == MARKS_NOTHING else 100, 5)]
    for base_length, way_out in ((40, "give a base with a longer context, this one reads 40"), (99, "N, up to 99")):
        with pytest.raises(DataError) as caught:
            encode_conversations(
                talks,
                ChatTemplate(template),
                tokenizer,
                context_length=40,
                base_length=base_length,
                overlong=overlong,
            )
        assert problem in caught.value.problem
        told = caught.value.hint or ""
        assert hint in told
        assert (way_out in told) == (template == CHATML)
