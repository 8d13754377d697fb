"""RoBERTa's folders as transformers writes them: where its positions end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import ByteLevelBPETokenizer, Tokenizer
from tokenizers.processors import RobertaProcessing

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


def save_tokenizer(folder: Path, **roles: Any) -> None:
    """Byte-level BPE with RoBERTa's special tokens; nothing says how long a text may be."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(TEXTS * 4, 400, special_tokens=SPECIAL)
    made = Tokenizer.from_str(trained.to_str())
    made.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(roles), encoding="utf-8")


def config() -> transformers.RobertaConfig:
    shape: dict[str, Any] = {
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 40,
    }
    return transformers.RobertaConfig(
        vocab_size=400, max_position_embeddings=POSITIONS, type_vocab_size=1, initializer_range=0.5, **shape
    )


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
    np.testing.assert_allclose(
        [one.probability for one in mask], scores[: model.encoder.vocab_size].topk(9).values, rtol=1e-4
    )
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
