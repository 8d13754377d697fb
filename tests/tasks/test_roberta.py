"""RoBERTa's folders as transformers writes them: where its positions end, and how its gaps are filled."""

from __future__ import annotations

import json
import math
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import ByteLevelBPETokenizer, Tokenizer
from tokenizers.processors import RobertaProcessing
from typer.testing import CliRunner

from rung.cli.main import app
from rung.data.shards import EncodedDocuments, TokenShards, write_shards
from rung.data.text_encoder import TextEncoder
from rung.errors import GenerationError
from rung.evaluation.masked_tokens import masked_token_records, unigram_frequencies
from rung.evaluation.pseudo_likelihood import pseudo_bits_per_byte
from rung.tasks.classification import network_predictor
from rung.tasks.classification.sequence_folder import FolderNetworks
from rung.tasks.masked_language_modelling.model import MaskedModel, load

TEXTS = ["Paris is the capital of France.", "Rome is the capital of Italy, isn't it?", "naïve café 🙂 東京 (ab12)"]
LONG = " ".join(TEXTS * 3)
POSITIONS = 20
LONGEST = 18  # the first position of a text is that of pad_token_id + 1 = 2
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


@cache
def tokenizer() -> str:
    """The `tokenizer.json` of a byte-level BPE with RoBERTa's special tokens."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(TEXTS * 4, 400, special_tokens=SPECIAL)
    made = Tokenizer.from_str(trained.to_str())
    made.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)
    return str(made.to_str())


def save_tokenizer(folder: Path, *, lstrip: bool = True) -> None:
    """Nothing says how long a text may be.

    `lstrip`: whether the mask takes the white space before it, as in the published `tokenizer.json`.
    """
    definition = json.loads(tokenizer())
    definition["added_tokens"][SPECIAL.index("<mask>")]["lstrip"] = lstrip
    (folder / "tokenizer.json").write_text(json.dumps(definition), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text("{}", encoding="utf-8")


def config() -> transformers.RobertaConfig:
    shape: dict[str, Any] = {
        "vocab_size": Tokenizer.from_str(tokenizer()).get_vocab_size(),
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 40,
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 1,
        "initializer_range": 0.5,
    }
    return transformers.RobertaConfig(**shape)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("roberta")
    torch.manual_seed(0)
    transformers.RobertaForMaskedLM(config()).save_pretrained(made)
    save_tokenizer(made)
    return made


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    net: Any = transformers.RobertaForMaskedLM.from_pretrained(folder)
    return net.eval()


@pytest.fixture(scope="module")
def model(folder: Path) -> MaskedModel:
    return load(folder)


def brute_force(net: Any, tokens: list[int]) -> list[float]:
    """Logarithmic probability of each of `tokens`, alone hidden between the brackets."""
    found = []
    for place, token in enumerate(tokens, start=1):
        ids = torch.tensor([[0, *tokens, 2]])
        ids[0, place] = SPECIAL.index("<mask>")
        with torch.no_grad():
            found.append(net(ids).logits[0, place].log_softmax(0)[token].item())
    return found


def stored(folder: Path, encoder: TextEncoder, text: str) -> TokenShards:
    ids, lengths = encoder.encode_ragged([text])
    batch = EncodedDocuments(
        tokens=ids,
        lengths=lengths,
        nbytes=np.array([len(text.encode())]),
        sha256=np.zeros((1, 32), np.uint8),
        continues=np.zeros(1, dtype=bool),
    )
    eos, size = encoder.eos_token_id, encoder.vocab_size
    return write_shards(folder, [batch], tokenizer_sha256=encoder.sha256, eos_token_id=eos, vocab_size=size)


# Positions ------------------------------------------------------------------------------------------------------------


def test_a_gap_is_filled_in_a_text_that_just_fits(model: MaskedModel, theirs: Any) -> None:
    words = " is" * (LONGEST - 3)
    (mask,) = model.fill(f"<mask>{words}", k=9).masks
    is_ = model.encoder.encode_ragged([" is"])[0].tolist()
    with torch.no_grad():
        scores = theirs(torch.tensor([[0, 4, *is_ * (LONGEST - 3), 2]])).logits[0, 1].softmax(0)
    np.testing.assert_allclose([one.probability for one in mask], scores.topk(9).values, rtol=1e-4)
    with pytest.raises(GenerationError, match=f"has {LONGEST + 1} tokens, and this network reads {LONGEST}"):
        model.fill(f"<mask>{words} is")


def test_a_longer_text_is_scored_in_windows_of_the_positions_there_are(model: MaskedModel, theirs: Any) -> None:
    whole = LONGEST - 2
    (found,) = model.pseudo_log_likelihood(" is the" * whole)
    assert len(found.token_ids) == 2 * whole
    expected = [one for half in (found.token_ids[:whole], found.token_ids[whole:]) for one in brute_force(theirs, half)]
    np.testing.assert_allclose(found.logprobs, expected, rtol=1e-4, atol=1e-4)


def test_a_longer_text_is_measured_and_guessed(model: MaskedModel, tmp_path: Path) -> None:
    shards = stored(tmp_path / "shards", model.encoder, LONG)
    documents = np.arange(1)
    record, _ = pseudo_bits_per_byte(model.net, model.encoder, shards, documents=documents)
    assert f"context={LONGEST}," in record.signature
    assert record.value is not None
    unigram = unigram_frequencies(shards, model.encoder)
    records, _ = masked_token_records(
        model.net, model.encoder, shards, unigram, documents=documents, whole_words=False, share=0.3
    )
    assert all(f"context={LONGEST}," in record.signature for record in records)


def test_a_classifier_reads_a_longer_text_up_to_its_last_position(folder: Path, tmp_path: Path) -> None:
    assert FolderNetworks.open(folder).longest == LONGEST
    names = {0: "no", 1: "yes"}
    shape = config()
    shape.id2label, shape.label2id = names, {name: number for number, name in names.items()}
    torch.manual_seed(1)
    net: Any = transformers.RobertaForSequenceClassification(shape)
    net.eval().save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    predictor = network_predictor.load(tmp_path)
    ids = predictor.encoder.encode([LONG], max_length=LONGEST).ids.tolist()
    assert len(ids) == LONGEST
    with torch.no_grad():
        expected = net(torch.tensor([ids])).logits.softmax(1)
    np.testing.assert_allclose(predictor.predict([LONG]).probabilities, expected, rtol=1e-4)


# Gaps -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[True, False], ids=["the mask takes the space", "the space stays"])
def opened(request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with either kind of mask."""
    copied = tmp_path_factory.mktemp("opened")
    shutil.copytree(folder, copied, dirs_exist_ok=True)
    save_tokenizer(copied, lstrip=request.param)
    return copied


@pytest.fixture(scope="module")
def pipeline(opened: Path, theirs: Any) -> Any:
    return transformers.pipeline(
        "fill-mask", model=theirs, tokenizer=transformers.AutoTokenizer.from_pretrained(opened)
    )


@pytest.mark.parametrize(
    "text",
    [
        "Paris is the <mask> of France",
        "Paris is the<mask> of France.",
        "<mask> is the capital",
        "Rome (<mask>)",
        "it is\n <mask>",
        "caf<mask>",
    ],
)
def test_a_gap_is_filled_as_by_transformers(text: str, opened: Path, pipeline: Any) -> None:
    filling = load(opened).fill(text, k=50)
    expected = pipeline(text, top_k=50)
    (mask,) = filling.masks
    assert [one.token for one in mask] == pipeline.tokenizer.convert_ids_to_tokens([one["token"] for one in expected])
    assert [one.text for one in mask] == [one["token_str"] for one in expected]
    assert any(one.text.startswith(" ") for one in mask)
    np.testing.assert_allclose([one.probability for one in mask], [one["score"] for one in expected], rtol=1e-4)
    if mask[0].token not in SPECIAL:  # their text leaves those out
        assert filling.filled.strip() == expected[0]["sequence"].strip()


def test_two_gaps_are_guessed_each_with_the_other_in_the_text(opened: Path, pipeline: Any) -> None:
    text = "<mask> is the <mask> of France"
    filling = load(opened).fill(text, k=3)
    for mask, expected in zip(filling.masks, pipeline(text, top_k=3), strict=True):
        assert [one.text for one in mask] == [one["token_str"] for one in expected]
    assert "<mask>" not in filling.filled


def test_spaces_stand_where_they_belong(opened: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(opened)
    strips = model.encoder.strips_left(4)

    def filled(token: str, text: str) -> str:
        scores = torch.zeros(model.encoder.vocab_size)
        scores[model.encoder.tokens.index(token)] = 50.0
        monkeypatch.setattr(type(model.net), "scores", lambda _, hidden: scores.expand(len(hidden), -1))
        return model.fill(text, k=1).filled

    assert filled("\u0120capital", "Paris is the<mask> of France") == "Paris is the capital of France"
    if strips:
        assert filled("\u0120capital", "Paris is the <mask> of France") == "Paris is the capital of France"
    assert filled("\u0120capital", "<mask> of France") == "capital of France"
    assert filled("l", "capita<mask> of France") == "capital of France"


def test_the_command_line_shows_tokens_as_they_read(folder: Path) -> None:
    result = CliRunner().invoke(app, ["predict", str(folder), "Paris is the <mask> of France", "--best", "300"])
    assert result.exit_code == 0, result.output
    assert "  \u0120" not in result.stdout
    assert "   capital " in result.stdout
    refused = CliRunner().invoke(app, ["predict", str(folder), "Paris is the [MASK] of France"])
    assert refused.exit_code == 1
    assert "no <mask>" in refused.output


def test_a_text_is_measured_on_the_command_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: Any
) -> None:
    monkeypatch.setenv("RUNG_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "text.txt"
    text.write_text(TEXTS[0], encoding="utf-8")
    result = CliRunner().invoke(app, ["eval", str(folder), str(text), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["pseudo_bits_per_byte"]
    tokens = load(folder).encoder.encode_ragged([TEXTS[0]])[0].tolist()
    bits = -sum(brute_force(theirs, tokens)) / math.log(2)
    assert found["value"] == pytest.approx(bits / len(TEXTS[0].encode()), rel=1e-4)
