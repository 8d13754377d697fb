"""A fitted classifier network, ready to predict. Nothing of training is imported here: it starts quickly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from rung.data.label_batches import collate
from rung.data.text_encoder import TextEncoder
from rung.nets.adapters import holds_adapter
from rung.nets.classifier import Classifier
from rung.nets.classifier_folder import load_classifier
from rung.nets.decoders import AnyDecoderConfig
from rung.nets.encoder_config import EncoderConfig
from rung.tasks.classification.predictions import Predictions
from rung.tasks.encoding import load_encoder


class NetworkPredictor:
    """Scores texts with a network; texts of similar length go through it together."""

    def __init__(self, net: Classifier, encoder: TextEncoder, *, max_length: int | None) -> None:
        self.net, self.encoder, self.max_length = net.eval(), encoder, max_length

    @property
    def num_parameters(self) -> int:
        """Numbers that were learned."""
        return sum(parameter.numel() for parameter in self.net.parameters())

    def predict(self, inputs: Sequence[str], *, batch_size: int = 32) -> Predictions:
        """The probability of every class for each text, (texts, classes), in the order of `inputs`.

        Texts with more than `max_length` tokens are read up to there, as they were in training.
        """
        texts = self.encoder.encode(inputs, max_length=self.max_length)
        probabilities = np.empty((len(texts), self.net.num_labels))
        by_length = np.argsort(texts.lengths, kind="stable")
        device = next(self.net.parameters()).device
        with torch.inference_mode():
            for start in range(0, len(texts), batch_size):
                rows = by_length[start : start + batch_size]
                batch = collate(texts, rows, self.encoder.pad_token_id)
                scores = self.net({name: tensor.to(device) for name, tensor in batch.items()})
                probabilities[rows] = scores.double().softmax(dim=1).cpu().numpy()
        return Predictions(probabilities)


def load(folder: Path) -> NetworkPredictor:
    """Load a classifier in `folder`: Rung's, a Hugging Face one of a known architecture, or an adapter on its base.

    Raises RunFolderError or TokenizerError when a file is missing, damaged or of an unknown kind.
    """
    net, encoder = _open(folder), load_encoder(folder)
    lengths = [encoder.model_max_length]
    if isinstance(net.config, EncoderConfig | AnyDecoderConfig):  # the others have no positions
        lengths.append(net.config.max_length)
    return NetworkPredictor(net, encoder, max_length=min(filter(None, lengths), default=None))


def _open(folder: Path) -> Classifier:
    if holds_adapter(folder):
        from rung.tasks.classification.tuned_folder import open_classifier

        return open_classifier(folder)
    return load_classifier(folder)
