"""SentencePiece models (`.spm`, `.model`; Kudo and Richardson 2018, arXiv 1808.06226), by the library of that name.

`tokenizers` has such models too, but cuts otherwise where two ways are equally good ("000" as 00 + 0 or 0 + 00), and
normalises whole graphemes by their first rule, which loses accents.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rung.errors import TokenizerError

SPACE = "\u2581"
"""What stands for a space in pieces."""
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3  # fields of a ModelProto, in `sentencepiece_model.proto`
_DAMAGED = "the file is damaged or incomplete: take another copy"


class SentencePieceModel:
    """Cuts texts into pieces.

    `controls`: pieces that stand for no text. `byte_fallback`: a character without a piece is spelled in bytes,
    `<0xE2>`.
    """

    def __init__(self, model: bytes, *, where: str) -> None:
        """Take the bytes of a file. TokenizerError when they are no whole model, or the library is missing."""
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError as error:
            raise TokenizerError(
                "this tokenizer needs the package sentencepiece", where=where, hint="pip install 'rung[translate]'"
            ) from error
        try:
            _require_whole(model)
            self._processor: Any = SentencePieceProcessor(model_proto=model)
        except (IndexError, RuntimeError, ValueError) as error:
            problem = f"{Path(where).name} is not a whole SentencePiece model: {error}"
            raise TokenizerError(problem, where=where, hint=_DAMAGED) from error
        numbers, library = range(self._processor.vocab_size()), self._processor
        silent = (number for number in numbers if library.is_control(number) or library.is_unknown(number))
        self.controls = frozenset(map(library.id_to_piece, silent))
        self.byte_fallback = any(map(library.is_byte, numbers))

    @classmethod
    def read(cls, path: Path) -> SentencePieceModel:
        """Read a file. TokenizerError when it is missing, damaged, or the library is missing."""
        try:
            model = path.read_bytes()
        except FileNotFoundError as error:
            hint = "copy it from the model's origin"
            raise TokenizerError(f"the folder has no {path.name}", where=str(path.parent), hint=hint) from error
        except OSError as error:
            raise TokenizerError(f"{path.name} cannot be read ({error})", where=str(path)) from error
        return cls(model, where=str(path))

    def pieces(self, text: str) -> list[str]:
        """What `text` is cut into. Neighbouring characters without a piece are one, by themselves or as bytes."""
        found: list[str] = self._processor.encode(text, out_type=str)
        return found


def _require_whole(model: bytes) -> None:
    """Raise ValueError or IndexError when the file ends within a field, or before what follows the pieces.

    The library takes a file that is cut off between two pieces for a smaller model.
    """
    place, found = 0, set()
    while place < len(model):
        found.add(model[place] >> 3)
        if model[place] & 7 != 2:  # all fields of a ModelProto are messages, and their numbers below 16
            raise ValueError(f"byte {place:,} begins no field")
        place += 1
        size = shift = 0
        while model[place] & 128:
            size |= (model[place] & 127) << shift
            place, shift = place + 1, shift + 7
        place += 1 + (size | model[place] << shift)
    if place > len(model) or not {_PIECES, _TRAINER, _NORMALIZER} <= found:
        raise ValueError(f"it ends at byte {len(model):,}")
