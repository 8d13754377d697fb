"""A trained text-to-text network with the verbs it supports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.data.pair_tokenizer import PairTokenizer
from rung.errors import RunFolderError
from rung.generation.beam_search import BeamOptions, Hypothesis
from rung.generation.matrices import Precision
from rung.generation.sequence_to_sequence import SequenceToSequence
from rung.nets.encoder_decoder import EncoderDecoder
from rung.nets.encoder_decoder_folder import load_encoder_decoder
from rung.nets.recurrent_encoder_decoder import RecurrentEncoderDecoder
from rung.runfolder import read_header, verify
from rung.tasks.rewriting.recipe import BeamSection
from rung.training.checkpoint import checkpoints

if TYPE_CHECKING:
    from rung.tasks.rewriting.evaluating import RewritingEvaluation

_BATCH = 64
_LONGER = 2  # a target may have so many times the tokens of its source ...
_AND_MORE = 32  # ... and so many more


@dataclass(frozen=True)
class Rewriting:
    """One way to rewrite a text. `score` is what ways are compared by: the log-probability per token^length_penalty.

    `finished` is false when the limit of tokens ended it.
    """

    text: str
    score: float
    finished: bool


class Rewriter:
    """An encoder-decoder and its tokenizer.

    `rewriter.rewrite(["A dog runs."])` returns the best text for each; `rewrite_many(texts, best=3)` the best three
    with their scores; `evaluate(files)` BLEU, chrF and ROUGE on pairs.
    """

    def __init__(
        self,
        folder: Path,
        net: EncoderDecoder | RecurrentEncoderDecoder,
        tokenizer: PairTokenizer,
        beam: BeamSection,
        header: Mapping[str, Any] | None = None,
        *,
        precision: Precision = "fp32",
    ) -> None:
        """Use `rung.load(folder)`."""
        self.folder, self.net, self.tokenizer, self.beam = folder, net, tokenizer, beam
        self.header = dict(header or {})
        self._writer = SequenceToSequence(
            net,
            precision=precision,
            batch_size=_BATCH,
            vocab_size=tokenizer.vocab_size,
            never=tokenizer.sentinels,
        )

    @property
    def context_length(self) -> int:
        """The most tokens of a text, its end token included."""
        return self._writer.context_length

    @property
    def num_parameters(self) -> int:
        """Learned numbers."""
        return sum(parameter.numel() for parameter in self.net.parameters())

    def rewrite(self, texts: str | Sequence[str], *, beams: int | None = None) -> list[str]:
        """The best target that beam search finds for each text; see `rewrite_many`."""
        return [found[0].text for found in self.rewrite_many(texts, beams=beams)]

    def rewrite_many(
        self,
        texts: str | Sequence[str],
        *,
        best: int = 1,
        beams: int | None = None,
        length_penalty: float | None = None,
        max_tokens: int | None = None,
    ) -> list[list[Rewriting]]:
        """The `best` targets for each text, best first; `beams` and `length_penalty` as trained, by default.

        `max_tokens`: of a target; by default twice those of its source and 32 more, within the context. Raises
        GenerationError for a text that is empty or longer than the context: nothing is cut off.
        """
        given = [texts] if isinstance(texts, str) else list(texts)
        encoded = self.tokenizer.encode(given)
        sources = [
            encoded.ids[start : start + n].tolist() for start, n in zip(encoded.starts, encoded.lengths, strict=True)
        ]
        beams = max(self.beam.num_beams if beams is None else beams, best)
        penalty = self.beam.length_penalty if length_penalty is None else length_penalty
        limits = None if max_tokens else [_LONGER * n + _AND_MORE for n in encoded.lengths.tolist()]
        options = BeamOptions(num_beams=beams, length_penalty=penalty, max_tokens=max_tokens or self.context_length)
        found = self._writer.search(sources, options, limits=limits)
        return [self._texts(hypotheses[:best]) for hypotheses in found]

    def evaluate(self, files: Sequence[Path | str], **options: Any) -> RewritingEvaluation:
        """BLEU and chrF, or ROUGE where targets are long, on pairs; see `rung.tasks.rewriting.evaluating.evaluate`."""
        from rung.tasks.rewriting.evaluating import evaluate

        return evaluate(self.folder, files, rewriter=self, **options)

    def _texts(self, hypotheses: Sequence[Hypothesis]) -> list[Rewriting]:
        texts = self.tokenizer.decode_batch([one.token_ids for one in hypotheses])
        return [Rewriting(text, one.score, one.finished) for text, one in zip(texts, hypotheses, strict=True)]


def load_rewriter(folder: str | Path, *, precision: Precision = "fp32") -> Rewriter:
    """Open a run folder or a checkpoint of one. A run that is not finished gives its newest checkpoint.

    Raises RunFolderError when there is no model or it is damaged.
    """
    path = Path(folder)
    header = read_header(path)
    recipe = header.get("recipe", {})
    if header.get("kind") == "run" and header.get("state") != "finished":
        found = checkpoints(path)
        if not found:
            raise RunFolderError(
                "this run has no checkpoint yet", where=str(path), hint=f"go on with: rung train --resume {path}"
            )
        path = list(found.values())[-1]
    verify(path)
    tokenizer = PairTokenizer.load(path)
    beam = BeamSection(**recipe.get("beam", {}))
    return Rewriter(path, load_encoder_decoder(path).eval(), tokenizer, beam, header, precision=precision)
