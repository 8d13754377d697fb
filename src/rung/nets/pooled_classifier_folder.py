"""Encoders whose head reads the mean over tokens, as folders of sentence-transformers.

transformers has no class for such a classifier: those of BERT and its relatives read the first token. But
sentence-transformers has the steps that it is made of: a Transformer, a mean, a dense layer. Its folder says these, and
what that program calls an embedding is the scores of the classes. `config.json` names the classes, and says
`classifier_pooling`.
"""

from __future__ import annotations

from pathlib import Path

from rung.errors import RunFolderError
from rung.nets.blank import without_values
from rung.nets.layers import Linear
from rung.nets.sentence_encoder import DenseConfig
from rung.nets.sentence_folder import MODULES, load_dense, read_steps, save_steps

_POOLING = ("mean",)


def save_head(head: Linear, folder: Path) -> None:
    """Write the steps after the body, `head` the last of them, into the existing `folder`."""
    dense = DenseConfig(head.in_features, head.out_features)
    save_steps(folder, head.in_features, _POOLING, (dense,), [head])


def load_head(folder: Path, hidden_size: int, num_labels: int) -> Linear:
    """Read the head of `num_labels` classes. RunFolderError when the steps are others, or a file is damaged."""
    if read_steps(folder, hidden_size) != (_POOLING, (DenseConfig(hidden_size, num_labels),)):
        raise RunFolderError(
            f"the steps are not those of a classifier of {num_labels} classes: a mean and one dense layer",
            where=str(folder / MODULES),
            hint="copy the whole folder again",
        )
    with without_values():
        head = Linear(hidden_size, num_labels)
    load_dense(folder, [head])
    return head
