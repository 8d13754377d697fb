"""The encoder-decoder's objective against torch's own smoothed cross-entropy over the whole score table."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rung.nets.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from rung.objectives.sequence_to_sequence import SequenceToSequence

CONFIG = EncoderDecoderConfig(23, 16, 1, 1, 2, 2, 32, 32, 12, 0, 1, 0)


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(1, 23, (3, 5), generator=generator)
    labels[0, 3:] = -100
    mask = torch.ones(3, 6, dtype=torch.bool)
    mask[2, 4:] = False
    return {
        "source_ids": torch.randint(1, 23, (3, 6), generator=generator),
        "source_mask": mask,
        "target_inputs": torch.randint(1, 23, (3, 5), generator=generator),
        "labels": labels,
    }


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_gradients_equal_plain_cross_entropy(smoothing: float) -> None:
    net = EncoderDecoder(CONFIG, generator=torch.Generator().manual_seed(1))
    given = batch()
    loss = SequenceToSequence(smoothing)(net, given)
    loss.total.backward()
    ours = [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None]
    net.zero_grad()
    scores = net(given["source_ids"], given["target_inputs"], given["source_mask"]).flatten(0, 1)
    expected = F.cross_entropy(scores, given["labels"].flatten(), reduction="sum", label_smoothing=smoothing)
    expected.backward()
    torch.testing.assert_close(loss.total, expected)
    torch.testing.assert_close(ours, [p.grad for p in net.parameters()], atol=1e-5, rtol=1e-4)
    assert int(loss.count) == 13
    plain = F.cross_entropy(scores, given["labels"].flatten(), reduction="sum")
    torch.testing.assert_close(loss.metrics["cross_entropy"], plain)


def test_rows_add_up() -> None:
    net = EncoderDecoder(CONFIG, generator=torch.Generator().manual_seed(1))
    given = batch()
    whole = SequenceToSequence(0.1)(net, given)
    parts = [SequenceToSequence(0.1)(net, {name: t[i : i + 1] for name, t in given.items()}) for i in range(3)]
    torch.testing.assert_close(sum(part.total for part in parts), whole.total)
    assert sum(int(part.count) for part in parts) == int(whole.count)


def test_a_smoothing_that_is_no_share_is_refused() -> None:
    with pytest.raises(ValueError, match="a share below 1"):
        SequenceToSequence(1.0)
