"""An encoder-decoder of someone's as what is tuned: its folder, its tokenizer, and how it wants targets written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rung.data.sequence_tokenizer import SequenceTokenizer, load_sequence_tokenizer
from rung.errors import UsageError
from rung.generation.target_settings import TargetSettings, read_target_settings
from rung.nets.architectures import FAMILIES
from rung.nets.encoder_decoder_folder import SequenceConfig, SequenceNet, is_encoder_decoder
from rung.nets.pretrained import CONFIG, read_config_file
from rung.tasks.bases import resolve_base
from rung.tasks.rewriting.recipe import BeamSection
from rung.tasks.rewriting.rewriter import Rewriter, open_encoder_decoder
from rung.tasks.rewriting.tuning_recipe import RewriteTuningRecipe


@dataclass(frozen=True)
class TuningBase:
    """A base's folder and what is read of it once; the network is read anew for each use."""

    folder: Path
    config: SequenceConfig
    parameters: int
    tokenizer: SequenceTokenizer
    settings: TargetSettings

    @classmethod
    def open(cls, base: str) -> TuningBase:
        """Read it. Raises UsageError for a base of another kind, RunFolderError or TokenizerError for a broken one."""
        folder = resolve_base(base)
        _require_encoder_decoder(folder)
        net = open_encoder_decoder(folder)
        parameters, settings = sum(p.numel() for p in net.parameters()), read_target_settings(folder, net.config)
        tokenizer = load_sequence_tokenizer(folder, vocab_size=net.config.vocab_size)
        return cls(folder, net.config, parameters, tokenizer, settings)

    def network(self, *, dropout: float) -> SequenceNet:
        """The base's network, an adapter of an earlier tuning merged into it."""
        return open_encoder_decoder(self.folder, dropout=dropout)

    def beam(self, recipe: RewriteTuningRecipe) -> BeamSection:
        """How targets are searched for: as the recipe has it, else as the base's folder, else as Rung usually does."""
        asked, usual = recipe.beam, BeamSection()
        stored = self.settings.stored
        return BeamSection(
            num_beams=asked.num_beams or stored.get("num_beams") or usual.num_beams,
            length_penalty=self.settings.length_penalty if asked.length_penalty is None else asked.length_penalty,
        )

    def tuned_settings(self, *, shortest: int) -> TargetSettings:
        """The settings for targets as short as `shortest` tokens, those of the pairs.

        A summariser's least length, say, would force long targets where the pairs have short ones.
        """
        rules = replace(self.settings.rules, min_tokens=min(self.settings.rules.min_tokens, shortest - 1))
        return replace(self.settings, rules=rules, max_tokens=None)

    def rewriter(self, net: SequenceNet, recipe: RewriteTuningRecipe, settings: TargetSettings) -> Rewriter:
        """`net` with the base's tokenizer, writing as the tuned model will."""
        return Rewriter(
            self.folder, net, self.tokenizer, self.beam(recipe), settings=settings, prefix=recipe.pairs.prefix
        )


def generation_config(settings: TargetSettings, beam: BeamSection, *, longest: int) -> Mapping[str, Any]:
    """What `generation_config.json` of a tuned model says: the base's settings, adapted to the pairs.

    `longest`: tokens of the longest target that transformers shall write.
    """
    dropped = (
        "_from_model_config",
        "transformers_version",
        "min_new_tokens",
        "max_new_tokens",
        "early_stopping",
        "length_penalty",
    )
    kept = {key: value for key, value in settings.stored.items() if key not in dropped}
    return {
        **kept,
        "decoder_start_token_id": settings.rules.start,
        "eos_token_id": settings.rules.end,
        "max_length": longest + 1,  # the start token counts there
        "min_length": settings.rules.min_tokens + 1 if settings.rules.min_tokens else 0,
        "num_beams": beam.num_beams,
        **({"length_penalty": beam.length_penalty} if beam.num_beams > 1 else {}),
        **({"early_stopping": settings.early_stopping} if beam.num_beams > 1 else {}),
    }


def _require_encoder_decoder(folder: Path) -> None:
    kind = read_config_file(folder).get("model_type")
    if is_encoder_decoder(kind):
        return
    where, known = str(folder / CONFIG), ", ".join(FAMILIES["encoder-decoders"])
    if kind in FAMILIES["decoders"]:
        raise UsageError(
            f"a {kind} continues one text and does not rewrite another",
            where=where,
            hint="tune it on conversations, the source as what the user says: rung tune BASE DATA --task chat",
        )
    raise UsageError(f"a {kind} cannot rewrite texts", where=where, hint=f"take an encoder-decoder: {known}")
