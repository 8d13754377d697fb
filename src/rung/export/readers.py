"""Programs that open an exported model: Rung itself, transformers, sentence-transformers and llama.cpp.

The last three are never needed: they are asked only to verify an export, where they happen to be installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rung.data.text_encoder import EncodedTexts

Scores = NDArray[np.float32]
Tokens = Callable[[str], list[int]]
# Its converter takes every byte-level BPE for GPT-2's or Qwen's by the architecture and never reads `ggml.pre`.
_SPLIT_IGNORED = "transformers 5.23 does not look at how a GGUF file splits text; llama.cpp does"
_DECODED = 8  # target tokens that an encoder-decoder is asked about


class Reader(Protocol):
    """A program with the model open."""

    name: str

    def tokens(self, text: str) -> list[int]:
        """Token ids of `text`, with the special tokens that belong around it (for decoders: none)."""
        ...

    def scores(self, ids: Sequence[int]) -> Scores:
        """What the network says about `ids`, (places, choices): the next token of each place, classes, a vector."""
        ...


class RungReader:
    """Rung, from a model folder."""

    def __init__(self, folder: Path, pipeline: str) -> None:
        self.name = "Rung"
        self._tokens, self._target_tokens = _own_tokens(folder, pipeline)
        self._net = _own_net(folder, pipeline)

    def tokens(self, text: str) -> list[int]:
        """See `Reader`."""
        return self._tokens(text)

    def target_tokens(self, text: str) -> list[int]:
        """Token ids of `text` as a target of an encoder-decoder; none for other networks."""
        return self._target_tokens(text)

    def scores(self, ids: Sequence[int]) -> Scores:
        """See `Reader`."""
        with torch.inference_mode():
            scores = self._net(torch.tensor([list(ids)]))
        return _rows(scores)


class TransformersReader:
    """transformers, from a Hugging Face folder, or from a GGUF file in one (`gguf_file`)."""

    def __init__(
        self,
        folder: Path,
        pipeline: str,
        architecture: str,
        *,
        gguf_file: str | None = None,
        config_of: Path | None = None,
    ) -> None:
        """Open `folder`. `config_of`: a folder with the `config.json` of what is in the GGUF file, because transformers
        5.23 leaves out some of it (scaled positions, the size of a head of qwen3).
        """
        transformers = _quiet_transformers()
        self.name = f"transformers {version('transformers')}"
        given: dict[str, Any] = {"trust_remote_code": False} | ({"gguf_file": gguf_file} if gguf_file else {})
        with warnings.catch_warnings():  # Marian's warns of what it would normalise by, and never does
            warnings.filterwarnings("ignore", "Recommended: pip install sacremoses")
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **given)
        if config_of is not None:
            given["config"] = transformers.AutoConfig.from_pretrained(config_of, trust_remote_code=False)
        self._decodes = pipeline == "text-generation"
        model_class = getattr(transformers, architecture, transformers.AutoModel)
        self._net = model_class.from_pretrained(folder, dtype=torch.float32, **given).eval()
        self._targets = pipeline == "text2text-generation"
        self._answer = "last_hidden_state" if pipeline == "feature-extraction" else "logits"
        if architecture.endswith("ForPreTraining"):
            self._answer = "prediction_logits"
        self.token_remark = _SPLIT_IGNORED if gguf_file else ""

    def tokens(self, text: str) -> list[int]:
        """See `Reader`."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=not self._decodes)["input_ids"]
        return ids

    def target_tokens(self, text: str) -> list[int]:
        """Token ids of `text` as a target of an encoder-decoder; none for other networks."""
        ids: list[int] = self._tokenizer(text_target=text)["input_ids"] if self._targets else []
        return ids

    def scores(self, ids: Sequence[int]) -> Scores:
        """See `Reader`."""
        row = torch.tensor([list(ids)])
        with torch.inference_mode():
            if self._targets:
                start = self._net.config.decoder_start_token_id
                found = self._net(input_ids=row, decoder_input_ids=torch.tensor([[start, *ids[: _DECODED - 1]]]))
            else:
                found = self._net(input_ids=row)
        return _rows(getattr(found, self._answer))


class SentenceTransformersReader:
    """sentence-transformers, from its own kind of folder: scores are the embedding."""

    def __init__(self, folder: Path) -> None:
        _quiet_transformers()
        package = importlib.import_module("sentence_transformers")
        self.name = f"sentence-transformers {version('sentence-transformers')}"
        self._model = package.SentenceTransformer(str(folder), device="cpu", trust_remote_code=False)

    def tokens(self, text: str) -> list[int]:
        """See `Reader`."""
        ids: list[int] = self._model.tokenizer(text)["input_ids"]
        return ids

    def scores(self, ids: Sequence[int]) -> Scores:
        """See `Reader`."""
        row = torch.tensor([list(ids)])
        with torch.inference_mode():
            found = self._model({"input_ids": row, "attention_mask": torch.ones_like(row)})
        return _rows(found["sentence_embedding"])


class LlamaDecoder:
    """llama.cpp by way of llama-cpp-python, a decoder, with keys and values in float32 as Rung keeps them."""

    def __init__(self, file: Path, context: int) -> None:
        self.name, self._llama = _open_llama(file, context, logits_all=True)

    def tokens(self, text: str) -> list[int]:
        """See `Reader`."""
        ids: list[int] = self._llama.tokenize(text.encode(), add_bos=False, special=False)
        return ids

    def scores(self, ids: Sequence[int]) -> Scores:
        """See `Reader`."""
        self._llama.reset()
        self._llama.eval(list(ids))
        return np.array(self._llama.scores[: len(ids)], dtype=np.float32)


class LlamaEncoder:
    """llama.cpp by way of llama-cpp-python, an encoder: it makes vectors of texts and takes no tokens."""

    def __init__(self, file: Path, context: int) -> None:
        self.name, self._llama = _open_llama(file, context, embedding=True)

    def tokens(self, text: str) -> list[int]:
        """See `Reader`."""
        ids: list[int] = self._llama.tokenize(text.encode(), add_bos=True, special=False)
        return ids

    def vectors(self, text: str) -> Scores:
        """One vector of a text, or one of each of its tokens: (vectors, dimension)."""
        return np.atleast_2d(np.array(self._llama.embed(text), dtype=np.float32))


def _quiet_transformers() -> Any:
    transformers = importlib.import_module("transformers")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def _open_llama(file: Path, context: int, **options: Any) -> tuple[str, Any]:
    llama_cpp = importlib.import_module("llama_cpp")
    float32 = llama_cpp.GGML_TYPE_F32
    llama = llama_cpp.Llama(
        str(file),
        n_ctx=context,
        n_batch=context,
        n_ubatch=context,
        n_threads=torch.get_num_threads(),
        type_k=float32,
        type_v=float32,
        verbose=False,
        **options,
    )
    return f"llama.cpp (llama-cpp-python {version('llama-cpp-python')})", llama


def installed(package: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


def _rows(scores: torch.Tensor) -> Scores:
    """(1, places, choices) or (1, choices) as (places, choices)."""
    array: Scores = scores.float().numpy()
    return array[0] if array.ndim == 3 else array


def _own_tokens(folder: Path, pipeline: str) -> tuple[Tokens, Tokens]:
    """What makes tokens of a text, and what does of a target."""
    if pipeline == "text-generation":
        from rung.data.tokenizer import Tokenizer

        return Tokenizer.load(folder).encode, lambda _: []
    if pipeline == "text2text-generation":
        from rung.data.sequence_tokenizer import load_sequence_tokenizer

        tokenizer = load_sequence_tokenizer(folder)
        return _of_one(tokenizer.encode), _of_one(tokenizer.encode_targets)
    from rung.tasks.encoding import load_encoder

    return _of_one(load_encoder(folder).encode), lambda _: []


def _of_one(encode: Callable[[Sequence[str]], EncodedTexts]) -> Tokens:
    return lambda text: [int(number) for number in encode([text]).ids]


def _own_net(folder: Path, pipeline: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Rung's network as a function of token ids (1, time)."""
    if pipeline == "text-generation":
        from rung.nets.language_models import load_language_model

        return load_language_model(folder).eval()
    if pipeline == "fill-mask":
        from rung.nets.masked_language_model import load_masked_language_model

        return load_masked_language_model(folder).eval()
    if pipeline == "text2text-generation":
        return _encoder_decoder(folder)
    if pipeline == "feature-extraction":
        from rung.nets.encoder_folder import load_encoder

        body = load_encoder(folder).eval()
        return lambda ids: body(body.embed(ids), None).hidden
    return _of_batches(folder, pipeline)


def _of_batches(folder: Path, pipeline: str) -> Callable[[torch.Tensor], torch.Tensor]:
    net: Any
    if pipeline == "text-classification":
        from rung.nets.classifier_folder import load_classifier

        net = load_classifier(folder).eval()
    elif pipeline == "token-classification":
        from rung.nets.tagger import load_tagger

        net = load_tagger(folder).eval()
    else:
        from rung.nets.sentence_folder import load_sentence_net

        net = load_sentence_net(folder).eval()
    return lambda ids: net({"input_ids": ids, "mask": torch.ones_like(ids, dtype=torch.bool)})


def _encoder_decoder(folder: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    from rung.nets.encoder_decoder_folder import load_encoder_decoder

    net: Any = load_encoder_decoder(folder).eval()

    def scores(ids: torch.Tensor) -> torch.Tensor:
        start = torch.tensor([[net.config.decoder_start_token_id]])
        found: torch.Tensor = net(ids, torch.cat([start, ids[:, : _DECODED - 1]], dim=1))
        return found

    return scores
