"""Classifiers of every family: shapes, padding that changes nothing, learning, and folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from rung.errors import RunFolderError
from rung.nets.classifier import Classifier, ClassifierConfig, build_classifier, parameter_shapes
from rung.nets.classifier_folder import load_classifier, save_classifier
from rung.nets.convolution import ConvolutionConfig
from rung.nets.decoder_config import DecoderConfig
from rung.nets.encoder_config import EncoderConfig
from rung.nets.recurrent import RecurrentBody, RecurrentConfig
from rung.objectives.classification import Classification

WORDS, CLASSES = 41, 3
LABELS = {"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
CONFIGS: dict[str, ClassifierConfig] = {
    "cnn": ConvolutionConfig(vocab_size=WORDS, embedding_size=12, num_filters=7),
    "rnn": RecurrentConfig(vocab_size=WORDS, cell="rnn", embedding_size=12, hidden_size=16),
    "lstm": RecurrentConfig(vocab_size=WORDS, cell="lstm", embedding_size=12, hidden_size=16, num_hidden_layers=2),
    "gru": RecurrentConfig(vocab_size=WORDS, cell="gru", embedding_size=12, hidden_size=16),
    "encoder": EncoderConfig(
        vocab_size=WORDS,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.0,
    ),
    "decoder": DecoderConfig(
        vocab_size=WORDS,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=32,
        pad_token_id=0,
    ),
}


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def net(request: pytest.FixtureRequest) -> Classifier:
    """A network whose every parameter is random, so that no zero-initialised matrix hides a difference."""
    torch.manual_seed(1)
    made = build_classifier(request.param, CLASSES).eval()
    for parameter in made.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return made


def batch(*lengths: int) -> dict[str, torch.Tensor]:
    """Random texts of these lengths, padded with words that are not the padding token."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(1, WORDS, (len(lengths), max(lengths)), generator=generator)
    return {"input_ids": ids, "mask": torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]}


def test_scores_are_one_row_per_text(net: Classifier) -> None:
    assert net(batch(5, 9, 1)).shape == (3, CLASSES)
    assert {name: p.shape for name, p in net.named_parameters()} == parameter_shapes(net.config, CLASSES)


def test_padding_changes_nothing(net: Classifier) -> None:
    """Whatever stands at masked places, and however much of it, each text scores as it does alone."""
    lengths = (5, 9, 1, 2)
    texts = batch(*lengths)
    with torch.no_grad():
        padded = net(texts)
        for row, length in enumerate(lengths):
            alone = net({"input_ids": texts["input_ids"][row : row + 1, :length]})
            torch.testing.assert_close(padded[row : row + 1], alone, rtol=1e-6, atol=1e-6)


def test_every_parameter_learns_and_one_batch_can_be_overfitted(net: Classifier) -> None:
    texts = {**batch(6, 4, 7, 5, 3, 6), "labels": torch.tensor([0, 1, 2, 0, 1, 2])}
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    objective = Classification()
    for step in range(120):
        optimizer.zero_grad()
        loss = objective(net, texts)
        loss.total.backward()  # type: ignore[no-untyped-call]
        if step == 0:
            idle = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
            # A key's bias shifts all scores of a query alike, which softmax does not see; one token type is used.
            assert not [name for name in idle if not name.endswith("key.bias")]
        optimizer.step()
    assert objective(net, texts).metrics["correct"] == 6
    assert loss.total < 0.3


def test_a_folder_gives_the_same_network_back(net: Classifier, tmp_path: Path) -> None:
    save_classifier(net, tmp_path, LABELS)
    again = load_classifier(tmp_path).eval()
    assert again.config == net.config
    for (name, ours), (other, theirs) in zip(net.named_parameters(), again.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(ours, theirs)
    with torch.no_grad():
        assert torch.equal(net(batch(4, 8)), again(batch(4, 8)))


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_recurrent_states_equal_torchs_packed_bidirectional_ones(cell: str) -> None:
    torch.manual_seed(3)
    config = RecurrentConfig(
        vocab_size=WORDS,
        cell=cell,
        embedding_size=12,
        hidden_size=16,
        num_hidden_layers=2,
        dropout=0.0,  # type: ignore[arg-type]
    )
    body = RecurrentBody(config).eval()
    theirs = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[cell](
        12, 8, num_layers=2, bidirectional=True, batch_first=True
    )
    for number, (ahead, back) in enumerate(zip(body.ahead, body.back, strict=True)):
        for direction, suffix in ((ahead, ""), (back, "_reverse")):
            for name, parameter in direction.named_parameters():
                getattr(theirs, name.replace("l0", f"l{number}") + suffix).data = parameter.data
    texts = batch(5, 9, 1)
    with torch.no_grad():
        embedded = body.embed(texts["input_ids"])
        packed = nn.utils.rnn.pack_padded_sequence(
            embedded, texts["mask"].sum(1), batch_first=True, enforce_sorted=False
        )
        expected, _ = nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)
        ours = body(embedded, texts["mask"]).hidden
    torch.testing.assert_close(ours[texts["mask"]], expected[texts["mask"]], rtol=1e-5, atol=1e-6)


def test_filters_see_each_window_of_a_text() -> None:
    """At positions whose window lies inside the text, the responses are those of a plain convolution."""
    config = ConvolutionConfig(vocab_size=WORDS, embedding_size=12, num_filters=7, filter_sizes=(4,))
    net = build_classifier(config, CLASSES).eval()
    ids = batch(9)["input_ids"]
    with torch.no_grad():
        hidden = net.body(net.embed(ids)).hidden
        expected = net.body.convolutions[0](net.embed(ids).transpose(1, 2)).relu().transpose(1, 2)  # type: ignore[index, operator, union-attr]
    torch.testing.assert_close(hidden[:, 1:7], expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "rung-crystal-ball"}, "rung-crystal-ball"),
        ({"num_filterz": 5}, "did you mean 'num_filters'"),
        ({"id2label": {}}, "id2label"),
        ({"vocab_size": None}, "cannot be|shape|fit"),
    ],
)
def test_a_config_that_cannot_be_honoured_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    save_classifier(build_classifier(CONFIGS["cnn"], CLASSES), tmp_path, LABELS)
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text()) | change
    path.write_text(json.dumps({key: value for key, value in stored.items() if value is not None}))
    with pytest.raises(RunFolderError, match=message):
        load_classifier(tmp_path)
