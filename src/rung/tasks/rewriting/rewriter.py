"""A trained text-to-text network with the verbs it supports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.data.sequence_tokenizer import SequenceTokenizer, load_sequence_tokenizer
from rung.data.text_encoder import EncodedTexts
from rung.generation.beam_search import BeamOptions, Hypothesis
from rung.generation.matrices import Precision
from rung.generation.sequence_to_sequence import SequenceToSequence
from rung.generation.target_rules import TargetRules
from rung.generation.target_settings import TargetSettings, read_target_settings
from rung.nets.encoder_decoder_folder import SequenceNet, load_encoder_decoder
from rung.runfolder import HEADER_NAME, read_header
from rung.tasks.rewriting.recipe import BeamSection
from rung.tasks.run import model_folder

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
    with their scores; `evaluate(files)` BLEU, chrF and ROUGE on pairs. `prefix` is put before every text, as T5 was
    taught what to do ("summarize: ").
    """

    def __init__(
        self,
        folder: Path,
        net: SequenceNet,
        tokenizer: SequenceTokenizer,
        beam: BeamSection,
        header: Mapping[str, Any] | None = None,
        *,
        precision: Precision = "fp32",
        settings: TargetSettings | None = None,
        prefix: str = "",
    ) -> None:
        """Use `rung.load(folder)`. `settings`: the rules for targets and their longest, where a folder brings them."""
        self.folder, self.net, self.tokenizer, self.beam = folder, net, tokenizer, beam
        self.header, self.prefix = dict(header or {}), prefix
        self._most = settings.max_tokens if settings else None
        self._early_stopping = settings.early_stopping if settings else False
        config = net.config
        never = (config.pad_token_id, *tokenizer.sentinels)
        rules = settings.rules if settings else TargetRules(config.decoder_start_token_id, config.eos_token_id, never)
        self._writer = SequenceToSequence(
            net,
            precision=precision,
            batch_size=_BATCH,
            vocab_size=tokenizer.vocab_size,
            rules=rules,
        )

    @property
    def context_length(self) -> int:
        """The most tokens of a text, its end token included."""
        return self._writer.context_length

    @property
    def num_parameters(self) -> int:
        """Learned numbers."""
        return sum(parameter.numel() for parameter in self.net.parameters())

    def rewrite(self, texts: str | Sequence[str], *, beams: int | None = None, prefix: str | None = None) -> list[str]:
        """The best target that beam search finds for each text; see `rewrite_many`."""
        return [found[0].text for found in self.rewrite_many(texts, beams=beams, prefix=prefix)]

    def rewrite_many(
        self,
        texts: str | Sequence[str],
        *,
        best: int = 1,
        beams: int | None = None,
        length_penalty: float | None = None,
        max_tokens: int | None = None,
        prefix: str | None = None,
    ) -> list[list[Rewriting]]:
        """The `best` targets for each text, best first; `beams`, `length_penalty` and `prefix` as trained, by default.

        `max_tokens`: of a target; by default what the folder says, or twice those of its source and 32 more, within
        the context. Raises GenerationError for a text that is empty or longer than the context: nothing is cut off.
        """
        encoded = self.encode([texts] if isinstance(texts, str) else list(texts), prefix=prefix)
        sources = [
            encoded.ids[start : start + n].tolist() for start, n in zip(encoded.starts, encoded.lengths, strict=True)
        ]
        beams = max(self.beam.num_beams if beams is None else beams, best)
        penalty = self.beam.length_penalty if length_penalty is None else length_penalty
        most = max_tokens or self._most
        limits = None if most else [_LONGER * n + _AND_MORE for n in encoded.lengths.tolist()]
        options = BeamOptions(beams, penalty, self._early_stopping, most or self.context_length)
        found = self._writer.search(sources, options, limits=limits)
        return [self._texts(hypotheses[:best]) for hypotheses in found]

    def encode(self, texts: Sequence[str], *, prefix: str | None = None) -> EncodedTexts:
        """The token ids that the network reads of `texts`, with the prefix before each."""
        before = self.prefix if prefix is None else prefix
        return self.tokenizer.encode([before + text for text in texts] if before else texts)

    def evaluate(self, files: Sequence[Path | str], **options: Any) -> RewritingEvaluation:
        """BLEU and chrF, or ROUGE where targets are long, on pairs; see `rung.tasks.rewriting.evaluating.evaluate`."""
        from rung.tasks.rewriting.evaluating import evaluate

        return evaluate(self.folder, files, rewriter=self, **options)

    def _texts(self, hypotheses: Sequence[Hypothesis]) -> list[Rewriting]:
        texts = self.tokenizer.decode_batch([one.token_ids for one in hypotheses])
        return [Rewriting(text, one.score, one.finished) for text, one in zip(texts, hypotheses, strict=True)]


def open_encoder_decoder(folder: Path, *, dropout: float = 0.0) -> SequenceNet:
    """The network of a model folder: a whole one, or an adapter merged into its base. Errors as for either."""
    from rung.tasks.tuning.folder import is_adapted, open_adapted  # late: it knows all language models too

    load = partial(load_encoder_decoder, dropout=dropout)
    return open_adapted(folder, load) if is_adapted(folder) else load(folder)


def load_rewriter(folder: str | Path, *, precision: Precision = "fp32") -> Rewriter:
    """Open a run folder, a checkpoint of one, or a folder of transformers' T5, BART or Marian.

    A run that is not finished gives its newest checkpoint. How targets are written is what `generation_config.json`
    says; the beams of a run are those of its recipe. Raises RunFolderError when there is no model, it is damaged, or
    it wants to be used in a way that is not supported; TokenizerError without a tokenizer.
    """
    path = model_folder(folder)
    header = read_header(Path(folder)) if (Path(folder) / HEADER_NAME).is_file() else {}
    net = open_encoder_decoder(path).eval()
    settings, recipe = read_target_settings(path, net.config), header.get("recipe", {})
    beam = BeamSection(num_beams=settings.num_beams, length_penalty=settings.length_penalty)
    if header and header.get("kind") != "base":  # Rung's own: a target may be as long as its source suggests
        named = "num_beams" in settings.stored
        beam = BeamSection(**recipe["beam"]) if "beam" in recipe else beam if named else BeamSection()
        settings = replace(settings, max_tokens=None)
    prefix = recipe.get("pairs", {}).get("prefix") or ""
    tokenizer = load_sequence_tokenizer(path, vocab_size=net.config.vocab_size)
    return Rewriter(path, net, tokenizer, beam, header, precision=precision, settings=settings, prefix=prefix)
