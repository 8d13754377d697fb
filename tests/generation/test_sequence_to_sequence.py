"""Targets from encoder-decoders: beam search and greedy against transformers, the steps against the whole network."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from rung.errors import GenerationError, UsageError
from rung.generation.beam_search import BeamOptions, Hypothesis, best_of_rows
from rung.generation.options import SamplingOptions
from rung.generation.sequence_to_sequence import SequenceToSequence
from rung.nets.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from rung.nets.encoder_decoder_folder import save_encoder_decoder
from rung.nets.recurrent_encoder_decoder import RecurrentEncoderDecoder, RecurrentEncoderDecoderConfig

PAD, END, VOCABULARY, CONTEXT = 0, 1, 20, 32
LSTM = RecurrentEncoderDecoderConfig(VOCABULARY, 24, 32, 1, CONTEXT, PAD, END, PAD)
Net = EncoderDecoder | RecurrentEncoderDecoder


def transformer(seed: int, vocabulary: int = VOCABULARY) -> EncoderDecoder:
    config = EncoderDecoderConfig(vocabulary, 32, 1, 2, 4, 2, 48, 48, CONTEXT, PAD, END, PAD)
    return EncoderDecoder(config, generator=torch.Generator().manual_seed(seed))


def words(count: int, seed: int = 9, vocabulary: int = VOCABULARY, longest: int = 9) -> list[list[int]]:
    """Random sources of 2 to `longest` tokens, the last of which ends them."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest, (count,), generator=generator).tolist()
    return [[*torch.randint(2, vocabulary, (length,), generator=generator).tolist(), END] for length in lengths]


def padded(rows: list[list[int]], value: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def taught_to_reverse(net: Net, steps: int, rate: float) -> Net:
    """Half taught, so that targets end of themselves while several hypotheses are worth considering."""
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(net.parameters(), rate, betas=(0.9, 0.98))
    net.train()
    for step in range(steps):
        sources = words(32, seed=1000 + step)
        targets = [[*source[-2::-1], END] for source in sources]
        ids, labels = padded(sources, PAD), padded(targets, -100)
        inputs = padded([[PAD, *target[:-1]] for target in targets], PAD)
        loss = F.cross_entropy(net(ids, inputs, ids != PAD).flatten(0, 1), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


@pytest.fixture(scope="module")
def reverser() -> EncoderDecoder:
    net = taught_to_reverse(transformer(0), 150, 3e-3)
    assert isinstance(net, EncoderDecoder)
    return net


@pytest.fixture(scope="module", params=["general", "additive", "fed"])
def recurrent(request: pytest.FixtureRequest) -> RecurrentEncoderDecoder:
    attention = "additive" if request.param == "additive" else "general"
    config = RecurrentEncoderDecoderConfig(
        VOCABULARY, 24, 32, 1, CONTEXT, PAD, END, PAD, attention, request.param == "fed"
    )
    net = taught_to_reverse(RecurrentEncoderDecoder(config), 60, 1e-2)
    assert isinstance(net, RecurrentEncoderDecoder)
    return net


def opened_there(net: EncoderDecoder, folder: Path) -> transformers.MarianMTModel:
    save_encoder_decoder(net, folder)
    return transformers.MarianMTModel.from_pretrained(folder).eval()


def without_padding(tokens: list[int]) -> list[int]:
    """A row that transformers wrote, without the start token and what follows its end.

    That is the end token again where padding is token 0: `pad_token_id or eos_token_id[0]`.
    """
    return tokens[1 : tokens.index(END) + 1]


def assert_same_hypotheses(
    theirs: transformers.MarianMTModel, ours: list[list[Hypothesis]], sources: list[list[int]], options: BeamOptions
) -> None:
    ids = padded(sources, PAD)
    found = theirs.generate(
        input_ids=ids,
        attention_mask=(ids != PAD).long(),
        num_beams=options.num_beams,
        num_return_sequences=options.num_beams,
        length_penalty=options.length_penalty,
        early_stopping=options.early_stopping,
        max_length=options.max_tokens + 1,
        return_dict_in_generate=True,
        output_scores=True,
    )
    flat = [hypothesis for hypotheses in ours for hypothesis in hypotheses]
    assert [hypothesis.token_ids for hypothesis in flat] == list(map(without_padding, found.sequences.tolist()))
    scores = torch.tensor([hypothesis.score for hypothesis in flat])
    torch.testing.assert_close(scores, found.sequences_scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize("length_penalty", [0.6, 1.0, 2.0, 0.0, -0.5])
def test_beam_search_is_that_of_transformers(
    reverser: EncoderDecoder, length_penalty: float, early_stopping: bool, tmp_path: Path
) -> None:
    theirs, ours, sources = opened_there(reverser, tmp_path), SequenceToSequence(reverser), words(24)
    lengths = set()
    for beams, longest in ((4, 20), (4, 6), (7, 12), (2, 1)):
        options = BeamOptions(beams, length_penalty, early_stopping, longest)
        found = ours.search(sources, options)
        assert_same_hypotheses(theirs, found, sources, options)
        lengths |= {len(hypothesis.token_ids) for hypotheses in found for hypothesis in hypotheses}
    assert len(lengths) > 8  # or this test says little


@pytest.mark.parametrize("seed", range(4))
def test_beam_search_of_untrained_networks_is_that_of_transformers(seed: int, tmp_path: Path) -> None:
    vocabulary = (11, 97, 1500, 4097)[seed]
    net = transformer(seed, vocabulary).eval()
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    bias = torch.randn(vocabulary, generator=torch.Generator().manual_seed(seed))
    net.lm_head.bias = bias
    theirs, ours, sources = opened_there(net, tmp_path), SequenceToSequence(net), words(9, seed, vocabulary)
    for penalty, early in itertools.product((0.6, 1.0, 2.0), (True, False)):
        options = BeamOptions(4, penalty, early, 18)
        assert_same_hypotheses(theirs, ours.search(sources, options), sources, options)


def test_greedy_is_that_of_transformers(reverser: EncoderDecoder, tmp_path: Path) -> None:
    sources = words(24)
    ids = padded(sources, PAD)
    found = opened_there(reverser, tmp_path).generate(
        input_ids=ids, attention_mask=(ids != PAD).long(), do_sample=False, num_beams=1, max_length=8
    )
    written = SequenceToSequence(reverser).write(sources, SamplingOptions(temperature=0, max_tokens=7))
    assert [hypothesis.token_ids for hypothesis in written] == list(map(without_padding, found.tolist()))
    assert any(hypothesis.finished for hypothesis in written)
    assert any(not hypothesis.finished for hypothesis in written)


def naive_logprob(net: Net, source: list[int], target: list[int]) -> float:
    """The sum of a target's log-probabilities from one pass over the whole of it."""
    with torch.no_grad():
        scores = net(torch.tensor([source]), torch.tensor([[PAD, *target[:-1]]]))[0]
    return float(scores.log_softmax(-1).gather(1, torch.tensor(target)[:, None]).sum())


def assert_scores_add_up(net: Net) -> None:
    sources = words(10)
    for source, hypotheses in zip(sources, SequenceToSequence(net).search(sources, BeamOptions(5)), strict=True):
        assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)
        assert len({tuple(h.token_ids) for h in hypotheses}) == 5
        for h in hypotheses:
            assert h.finished
            assert h.token_ids[-1] == END
            assert END not in h.token_ids[:-1]
            assert h.logprob == pytest.approx(naive_logprob(net, source, h.token_ids), abs=1e-3)
            assert h.score == pytest.approx(h.logprob / len(h.token_ids), abs=1e-6)


def test_the_transformers_scores_add_up(reverser: EncoderDecoder) -> None:
    assert_scores_add_up(reverser)


def test_the_lstms_scores_add_up(recurrent: RecurrentEncoderDecoder) -> None:
    assert_scores_add_up(recurrent)


def naive_greedy(net: Net, source: list[int], longest: int) -> list[int]:
    """Every step reads the whole target again."""
    target = [PAD]
    while len(target) <= longest and target[-1] != END:
        with torch.no_grad():
            scores = net(torch.tensor([source]), torch.tensor([target]))[0, -1]
        scores[PAD] = -torch.inf
        target.append(END if len(target) == longest else int(scores.argmax()))
    return target[1:]


def test_the_lstms_state_takes_the_place_of_reading_again(recurrent: RecurrentEncoderDecoder) -> None:
    sources = words(10)
    written = SequenceToSequence(recurrent, batch_size=4).write(sources, SamplingOptions(temperature=0, max_tokens=12))
    assert [h.token_ids for h in written] == [naive_greedy(recurrent, source, 12) for source in sources]


def test_one_beam_is_greedy(reverser: EncoderDecoder) -> None:
    sources, writer = words(16), SequenceToSequence(reverser)
    searched = writer.search(sources, BeamOptions(num_beams=1, early_stopping=True, max_tokens=20))
    greedy = writer.write(sources, SamplingOptions(temperature=0, max_tokens=20))
    assert [found[0].token_ids for found in searched] == [h.token_ids for h in greedy]


def exhaustive(net: Net, source: list[int], longest: int) -> list[tuple[float, list[int]]]:
    """Every target of up to `longest` tokens with its sum, the best first; the last token ends at no cost."""
    inside = [token for token in range(VOCABULARY) if token not in (PAD, END)]
    found = []
    for length in range(longest):
        for target in itertools.product(inside, repeat=length):
            whole = [*target, END]
            total = naive_logprob(net, source, whole)
            if len(whole) == longest:
                with torch.no_grad():
                    last = net(torch.tensor([source]), torch.tensor([[PAD, *target]]))[0, -1].log_softmax(-1)[END]
                total -= float(last)
            found.append((total, whole))
    return sorted(found, key=lambda item: -item[0])


def test_enough_beams_find_the_best_targets_there_are(reverser: EncoderDecoder) -> None:
    source = [5, 9, END]
    best = exhaustive(reverser, source, 3)[:3]
    options = BeamOptions(num_beams=VOCABULARY, length_penalty=0.0, early_stopping="never", max_tokens=3)
    found = SequenceToSequence(reverser).search([source], options)[0][:3]
    assert [h.token_ids for h in found] == [target for _, target in best]
    assert [h.logprob for h in found] == pytest.approx([total for total, _ in best], abs=1e-4)


@settings(max_examples=5)
@given(order=st.permutations(range(12)), batch_size=st.integers(1, 13))
def test_a_target_does_not_depend_on_its_company(reverser: EncoderDecoder, order: list[int], batch_size: int) -> None:
    sources = words(12)
    drawn = [SamplingOptions(temperature=0.8, top_k=8, max_tokens=12, seed=number) for number in range(12)]
    alone, together = SequenceToSequence(reverser, batch_size=1), SequenceToSequence(reverser, batch_size=batch_size)

    def tokens(writer: SequenceToSequence, numbers: list[int]) -> dict[int, list[list[int]]]:
        chosen = [sources[number] for number in numbers]
        found = writer.search(chosen, BeamOptions(3, max_tokens=12))
        written = writer.write(chosen, [drawn[number] for number in numbers])
        return {
            number: [*(h.token_ids for h in hypotheses), sample.token_ids]
            for number, hypotheses, sample in zip(numbers, found, written, strict=True)
        }

    assert tokens(together, list(order)) == tokens(alone, list(range(12)))


def test_draws_follow_the_networks_probabilities(reverser: EncoderDecoder) -> None:
    source = [4, 11, 6, 2, END]
    with torch.no_grad():
        scores = reverser(torch.tensor([source]), torch.tensor([[PAD]]))[0, 0]
    scores[PAD] = -torch.inf
    options = [SamplingOptions(max_tokens=2, seed=seed) for seed in range(2000)]
    written = SequenceToSequence(reverser, batch_size=500).write([source] * 2000, options)
    counts = torch.bincount(torch.tensor([h.token_ids[0] for h in written]), minlength=VOCABULARY)
    assert (counts / 2000 - scores.softmax(-1)).abs().max() < 0.04


def test_a_repetition_penalty_sees_what_was_written(reverser: EncoderDecoder) -> None:
    sources = [[7, 7, 7, 7, END]]
    options = SamplingOptions(temperature=0, repetition_penalty=1e6, max_tokens=6)
    tokens = SequenceToSequence(reverser).write(sources, options)[0].token_ids
    assert len(set(tokens)) == len(tokens)


def test_bfloat16_writes_nearly_the_same(reverser: EncoderDecoder) -> None:
    sources = words(32)
    exact, rounded = (SequenceToSequence(reverser, precision=p).search(sources) for p in ("fp32", "bf16"))
    pairs = list(zip(exact, rounded, strict=True))
    assert sum(a[0].token_ids == b[0].token_ids for a, b in pairs) >= 28
    torch.testing.assert_close(
        torch.tensor([a[0].score for a, _ in pairs]), torch.tensor([b[0].score for _, b in pairs]), rtol=0.1, atol=0.1
    )


def test_tokens_that_the_tokenizer_lacks_are_never_written(reverser: EncoderDecoder) -> None:
    writer = SequenceToSequence(reverser, vocab_size=9)
    written = writer.write(words(8), SamplingOptions(max_tokens=10))
    found = writer.search(words(8), BeamOptions(max_tokens=10))
    for hypothesis in [*written, *(h for hypotheses in found for h in hypotheses)]:
        assert PAD < min(hypothesis.token_ids) <= max(hypothesis.token_ids) < 9


def test_each_source_has_a_limit_of_its_own(reverser: EncoderDecoder) -> None:
    sources, writer = words(12), SequenceToSequence(reverser)
    limits = [1 + number % 6 for number in range(12)]
    together = writer.search(sources, BeamOptions(max_tokens=5), limits=limits)
    for source, limit, found in zip(sources, limits, together, strict=True):
        alone = writer.search([source], BeamOptions(max_tokens=min(limit, 5)))[0]
        assert [h.token_ids for h in found] == [h.token_ids for h in alone]
        assert [h.finished for h in found] == [h.finished for h in alone]
        assert max(len(h.token_ids) for h in found) <= min(limit, 5)


def test_a_network_in_training_stays_in_training(reverser: EncoderDecoder) -> None:
    net = EncoderDecoder(reverser.config, dropout=0.5, tensors=dict(reverser.model.named_parameters(prefix="model")))
    net.train()
    sources = words(6)
    found = SequenceToSequence(net).search(sources)
    assert net.training
    assert [h[0].token_ids for h in found] == [h[0].token_ids for h in SequenceToSequence(reverser).search(sources)]


def test_nothing_in_nothing_out(reverser: EncoderDecoder) -> None:
    writer = SequenceToSequence(reverser)
    assert writer.search([]) == []
    assert writer.write([]) == []


@pytest.mark.parametrize(
    ("ask", "error", "said"),
    [
        (lambda w: w.search([[3, END], []]), GenerationError, "the source has 0 tokens"),
        (lambda w: w.write([[3] * 40]), GenerationError, "the source has 40 tokens, the network reads from 1 to 32"),
        (lambda w: w.write([[3]], SamplingOptions(stop=("x",))), UsageError, "stop strings mean nothing"),
        (lambda w: w.write([[3]], [SamplingOptions()] * 2), GenerationError, "1 sources and 2 options"),
        (lambda w: SequenceToSequence(w._net, batch_size=0), UsageError, "batch_size must be at least 1"),
        (lambda _: BeamOptions(num_beams=0), UsageError, "num_beams must be a whole number"),
        (lambda _: BeamOptions(max_tokens=True), UsageError, "max_tokens must be a whole number"),
        (lambda _: BeamOptions(length_penalty=float("nan")), UsageError, "length_penalty must be from"),
        (lambda _: BeamOptions(early_stopping="always"), UsageError, "early_stopping must be"),
    ],
)
def test_what_cannot_be_done_is_refused(
    ask: Callable[[SequenceToSequence], object], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        ask(SequenceToSequence(transformer(0)))


def test_damaged_weights_are_noticed() -> None:
    net = transformer(0)
    with torch.no_grad():
        net.model.decoder.layers[0].fc1.weight[3, 3] = torch.nan
    with pytest.raises(GenerationError, match="scores are not finite"):
        SequenceToSequence(net).search(words(2))
    with pytest.raises(GenerationError, match="scores are not finite"):
        SequenceToSequence(net).write(words(2))


def test_an_lstm_writes_in_float32_only() -> None:
    with pytest.raises(GenerationError, match="an LSTM writes in fp32, not in bf16"):
        SequenceToSequence(RecurrentEncoderDecoder(LSTM), precision="bf16")


@given(rows=st.integers(1, 3), columns=st.integers(8, 3000), count=st.integers(1, 8), seed=st.integers(0, 9))
def test_the_best_of_each_row_are_found_in_blocks(rows: int, columns: int, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.stack([torch.randperm(columns, generator=generator) for _ in range(rows)]).float()
    values, places = best_of_rows(scores, count)
    expected = scores.topk(count, -1)
    assert torch.equal(values, expected.values)
    assert torch.equal(places, expected.indices)
