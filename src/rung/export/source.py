"""What is exported: a model folder of any kind, with what its run has recorded."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rung.errors import RunFolderError
from rung.nets.label_names import is_mean_classifier
from rung.nets.pretrained import CONFIG, read_config_file
from rung.nets.weights import Weights
from rung.records import Record
from rung.runfolder import HEADER_NAME, read_header, readable_write_errors
from rung.tasks.bases import resolve_base
from rung.tasks.run import CARD, RESULTS
from rung.tasks.tuning.folder import is_adapted

_CONSTANTS = (".position_ids", ".token_type_ids", ".attn.bias", ".attn.masked_bias")
_RESULTS_HINT = "restore the file, or remove it: the card then says that nothing is measured"
SENTENCE_MODULES = "modules.json"
# By the end of the name of its class in transformers. Longer ends stand before those that they end in.
_PIPELINES = {
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForMaskedLM": "fill-mask",
    "ForPreTraining": "fill-mask",
    "ForConditionalGeneration": "text2text-generation",
    "MarianMTModel": "text2text-generation",
}


@dataclass(frozen=True)
class Source:
    """A model folder, whole: `config` is its `config.json`, `header` the `rung.json` of its run, or empty."""

    run: Path
    folder: Path
    config: dict[str, Any]
    header: dict[str, Any] = field(default_factory=dict)

    @property
    def model_type(self) -> str:
        """The family, as `config.json` names it."""
        return str(self.config.get("model_type"))

    @property
    def architecture(self) -> str:
        """The class that opens it in transformers, or an empty string for Rung's own networks."""
        return _architecture_of(self.config)

    @property
    def has_steps(self) -> bool:
        """Whether it is a folder of sentence-transformers: a sentence encoder, or a classifier on the mean."""
        return (self.folder / SENTENCE_MODULES).is_file()

    @property
    def pipeline(self) -> str:
        """What it does, as the hub names it: "text-generation", "text-classification", "sentence-similarity", ..."""
        found = _pipeline_of(self.config)
        return "sentence-similarity" if self.has_steps and found != "text-classification" else found

    @property
    def computes(self) -> str:
        """What it does in Rung: as `pipeline`, but for classifiers of Rung's own that transformers has no class for."""
        own = self.model_type.startswith("rung-") and "id2label" in self.config
        return "text-classification" if own else self.pipeline

    @property
    def unfinished(self) -> str | None:
        """The state of its run, such as "interrupted", where that is not finished; None for all others."""
        state = self.header.get("state") if self.header.get("kind") == "run" else None
        return None if state == "finished" else state

    @property
    def most_tokens(self) -> int | None:
        """How many tokens the network can read at once; None where its positions have no end."""
        named = (self.config.get(key) for key in ("max_position_embeddings", "n_positions"))
        most = next((number for number in named if isinstance(number, int)), None)
        if self.model_type == "roberta" and most is not None:  # its positions begin behind that of the padding
            return most - int(self.config.get("pad_token_id", 1)) - 1
        return most

    @property
    def card(self) -> str:
        """The model card beside the model; empty where there is none."""
        path = self.folder / CARD
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    @property
    def records(self) -> list[Record]:
        """What was measured, from `results.json`."""
        path = self.folder / RESULTS
        if not path.is_file():
            return []
        try:
            found = json.loads(path.read_text(encoding="utf-8"))["records"]
            return [Record.model_validate(record) for record in found]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunFolderError(f"{RESULTS} cannot be read ({error})", where=str(path), hint=_RESULTS_HINT) from error


def parameter_names(weights: Weights) -> list[str]:
    """The names of all weights, in order, without the constants that older versions of transformers stored beside them.

    Those are positions 0, 1, 2, ..., token types, and GPT-2's causal mask.
    """
    return sorted(name for name in weights.names() if not name.endswith(_CONSTANTS))


@contextmanager
def open_source(run: str | Path) -> Iterator[Source]:
    """Find the model of a run folder, a model folder or a base (see `rung.tasks.bases.resolve_base`).

    An adapter is merged into its base, in a folder that goes when the context ends. The header is the run's.
    Raises RunFolderError when there is none, or it is damaged.
    """
    folder = resolve_base(run)
    if not (folder / CONFIG).is_file():
        raise RunFolderError(
            f"there is no {CONFIG} here", where=str(folder), hint="rung export takes networks and word vectors"
        )
    told = Path(run) if (Path(run) / HEADER_NAME).is_file() else folder  # of a run, not of its newest checkpoint
    header = read_header(told) if (told / HEADER_NAME).is_file() else {}
    if not is_adapted(folder):
        yield Source(Path(run), folder, read_config_file(folder), header)
        return
    from rung.export.merging import write_merged

    with tempfile.TemporaryDirectory(prefix="rung-merged-") as temporary:
        merged = Path(temporary)
        config = read_config_file(folder)
        with readable_write_errors(merged):
            write_merged(folder, merged, _pipeline_of(config))
        yield Source(Path(run), merged, read_config_file(merged), header)


def _architecture_of(config: Mapping[str, Any]) -> str:
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else ""


def _pipeline_of(config: Mapping[str, Any]) -> str:
    if is_mean_classifier(config):
        return "text-classification"
    architecture = _architecture_of(config)
    return next((kind for end, kind in _PIPELINES.items() if architecture.endswith(end)), "feature-extraction")
