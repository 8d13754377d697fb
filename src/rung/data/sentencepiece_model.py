"""SentencePiece's Unigram models (`.spm`, `.model`; Kudo 2018, arXiv 1804.10959): the file, and the pieces of a text.

A text is normalised, then cut where the sum of the pieces' scores is highest. Both are computed as SentencePiece does
it, because `tokenizers` differs from it: it adds up in float64, and so cuts otherwise where two ways are equally good
("000" as 00 + 0 or 0 + 00), and it normalises whole graphemes by their first rule, which loses accents.

A file is a message of protocol buffers, `ModelProto` in SentencePiece's `sentencepiece_model.proto`.
"""

from __future__ import annotations

import math
import re
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rung.errors import TokenizerError

SPACE = "\u2581"
"""What stands for a space in pieces."""
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
_KINDS = {1: "Unigram", 2: "BPE", 3: "words", 4: "characters"}
_PIECES, _TRAINER, _NORMALIZER, _DENORMALIZER = 1, 2, 3, 5  # fields of a ModelProto
_UNKNOWN_PENALTY = 10.0
_DAMAGED = "the file is damaged or incomplete: take another copy"


@dataclass(frozen=True)
class SentencePieceModel:
    """A Unigram model.

    `scores`: log-probabilities of the pieces that texts are cut into; `controls`: pieces that stand for no text.
    `byte_fallback`: a character without a piece is spelled in bytes, `<0xE2>`. `rules`: how text is normalised;
    `adds_prefix`: a space is put before a text; `trims`: several spaces are one, and those at
    the ends none.
    """

    scores: dict[str, float]
    controls: frozenset[str]
    byte_fallback: bool
    rules: Rules | None
    adds_prefix: bool
    trims: bool

    @classmethod
    def read(cls, path: Path) -> SentencePieceModel:
        """Read a file. TokenizerError when it is missing, damaged, not Unigram, or wants what is not supported."""
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            hint = "copy it from the model's origin"
            raise TokenizerError(f"the folder has no {path.name}", where=str(path.parent), hint=hint) from error
        except OSError as error:
            raise TokenizerError(f"{path.name} cannot be read ({error})", where=str(path)) from error
        try:
            return cls._parse(data)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, struct.error) as error:
            problem = f"{path.name} is not a whole SentencePiece model: {error}"
            raise TokenizerError(problem, where=str(path), hint=_DAMAGED) from error
        except TokenizerError as error:
            raise TokenizerError(f"{path.name} {error.problem}", where=str(path), hint=error.hint) from None

    @classmethod
    def _parse(cls, data: bytes) -> SentencePieceModel:
        parts: dict[int, dict[int, Any]] = {}
        scores: dict[str, float] = {}
        others: dict[str, int] = {}
        for number, value in _fields(data):
            if number == _PIECES:
                found = dict(_fields(value))
                piece, kind = found[1].decode(), found.get(3, _NORMAL)
                if not piece or piece in scores or piece in others:
                    raise ValueError(f"the piece {piece!r:.60} is empty or there twice")
                if kind == _NORMAL:
                    scores[piece] = _float(found.get(2, bytes(4)))
                else:
                    others[piece] = kind
            elif number in (_TRAINER, _NORMALIZER, _DENORMALIZER):
                parts[number] = dict(_fields(value))
        if not scores or not {_TRAINER, _NORMALIZER} <= parts.keys():
            raise ValueError("it has no pieces, or does not say how it was trained or how it normalises")
        trainer, normalizer = parts[_TRAINER], parts[_NORMALIZER]
        if (kind := trainer.get(3, 1)) != 1:
            raise TokenizerError(
                f"is a model of kind {_KINDS.get(kind, kind)}, and only Unigram is supported",
                hint="published Marian models have Unigram; SentencePiece trains it with --model_type=unigram",
            )
        unsupported = {
            "pieces that its user defined": _USER_DEFINED in others.values(),
            "spaces that end words (treat_whitespace_as_suffix)": trainer.get(24, 0),
            "spaces that are not escaped (escape_whitespaces)": not normalizer.get(5, 1),
            "rules for decoding (denormalizer_spec)": parts.get(_DENORMALIZER, {}).get(2),
        }
        if wanted := [what for what, is_there in unsupported.items() if is_there]:
            raise TokenizerError(
                f"has {', '.join(wanted)}, which is not supported",
                hint="tokens would silently be others; train the model without",
            )
        return cls(
            scores,
            controls=frozenset(piece for piece, kind in others.items() if kind in (_CONTROL, _UNKNOWN)),
            byte_fallback=bool(trainer.get(35, 0)),
            rules=Rules(normalizer[2]) if normalizer.get(2) else None,
            adds_prefix=bool(normalizer.get(3, 1)),
            trims=bool(normalizer.get(4, 1)),
        )

    def pieces(self, text: str) -> list[str]:
        """What `text` is cut into. Neighbouring characters without a piece are one, by themselves or as bytes."""
        normal = self.normalise(text)
        begins = self._begins(normal)
        cuts, end = [], len(normal)
        while end:
            cuts.append(normal[begins[end] : end])
            end = begins[end]
        found: list[str] = []
        after_unknown = False
        for piece in reversed(cuts):
            is_unknown = piece not in self.scores
            if is_unknown and self.byte_fallback:
                found += [f"<0x{byte:02X}>" for byte in piece.encode()]
            elif is_unknown and after_unknown:
                found[-1] += piece
            else:
                found.append(piece)
            after_unknown = is_unknown
        return found

    def normalise(self, text: str) -> str:
        """`text` by the rules, with `SPACE` for spaces and at its beginning."""
        if not text:
            return ""
        text = self.rules.apply(text) if self.rules else text
        if self.trims:
            text = re.sub(" +", " ", text).removeprefix(" ")
        text = (" " * self.adds_prefix + text).replace(" ", SPACE)
        return text.rstrip(SPACE) if self.trims else text

    @cached_property
    def _tree(self) -> Any:
        """The pieces by their characters: a dictionary of such; where one ends, its score is under the empty string."""
        root: dict[str, Any] = {}
        for piece, score in self.scores.items():
            node = root
            for character in piece:
                node = node.setdefault(character, {})
            node[""] = score
        return root

    def _begins(self, normal: str) -> list[int]:
        """Where the piece that ends at each place begins, in the best way to cut the text up to there.

        Sums are rounded to float32, as in SentencePiece's `EncodeOptimized`: that decides between ways equally good.
        """
        best = [0.0] + [-math.inf] * len(normal)
        begins = [0] * len(best)
        tree, longest, unknown, scores = self._tree, self._longest, self._unknown, self.scores
        total = array("f", [0.0])  # what is put in is rounded
        for start, first in enumerate(normal):
            till_here, node, end = best[start], tree, start
            for character in normal[start : start + longest]:
                node = node.get(character)
                if node is None:
                    break
                end += 1
                score = node.get("")
                if score is not None and till_here + score > best[end]:
                    total[0] = till_here + score
                    if total[0] > best[end]:
                        best[end], begins[end] = total[0], start
            if first not in scores:
                total[0] = till_here + unknown
                if total[0] > best[start + 1]:
                    best[start + 1], begins[start + 1] = total[0], start
        return begins

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self.scores))

    @cached_property
    def _unknown(self) -> float:
        """The score of a character without a piece, in float32."""
        return array("f", [min(self.scores.values()) - _UNKNOWN_PENALTY])[0]


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a message by number: whole numbers, or bytes. ValueError when the message is cut off."""
    place = 0
    while place < len(data):
        tag, place = _whole_number(data, place)
        match tag & 7:
            case 0:
                value, place = _whole_number(data, place)
                yield tag >> 3, value
                continue
            case 1:
                size = 8
            case 2:
                size, place = _whole_number(data, place)
            case 5:
                size = 4
            case wire:
                raise ValueError(f"a field of kind {wire} at byte {place:,}")
        if place + size > len(data):
            raise ValueError(f"it ends at byte {len(data):,}, within a field")
        yield tag >> 3, data[place : place + size]
        place += size


def _whole_number(data: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and the place after it."""
    number = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise ValueError(f"it ends at byte {len(data):,}, within a number")
        byte = data[place]
        place += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, place
    raise ValueError(f"a number of more than ten bytes before byte {place:,}")


def _float(data: bytes) -> float:
    (number,) = struct.unpack("<f", data)
    if not math.isfinite(number):
        raise ValueError("a score that is not finite")
    return float(number)


class Rules:
    """What text is replaced by what, the longest match first: `precompiled_charsmap` of a model.

    It is a double array (of Darts-clone) over the UTF-8 of what is replaced, and the replacements. The array is a tree:
    the child of a node by a byte is where the node's offset, XOR the byte, points to, if that byte is written there;
    where a rule ends, the child by byte 0 says where its replacement begins.
    """

    def __init__(self, charsmap: bytes) -> None:
        """ValueError when it is cut off."""
        size = int.from_bytes(charsmap[:4], "little")
        units, self._texts = np.frombuffer(charsmap[4 : 4 + size], "<u4"), charsmap[4 + size :]
        if not len(units) or not self._texts.endswith(b"\0"):
            raise ValueError("its rules for normalising are cut off")
        children = np.arange(len(units), dtype="<u4") ^ ((units >> 10) << ((units & 0x200) >> 6))
        self._units: list[int] = units.tolist()
        self._children: list[int] = children.tolist()

    def apply(self, text: str) -> str:
        """`text` after replacing. TokenizerError for rules that lead nowhere."""
        try:
            return self._applied(text)
        except (IndexError, ValueError) as error:
            raise TokenizerError("the rules for normalising are damaged", hint=_DAMAGED) from error

    def _applied(self, text: str) -> str:
        data = text.encode()
        parts: list[bytes] = []
        done = place = 0
        while place < len(data):
            end, replacement = self._longest(data, place)
            if end:
                parts += [data[done:place], replacement]
                done = place = end
            else:
                place += 1
        return b"".join([*parts, data[done:]]).decode()

    def _longest(self, data: bytes, place: int) -> tuple[int, bytes]:
        """The end of the longest match that begins at `place`, and what replaces it; 0 where there is none."""
        units, children = self._units, self._children
        node, end, begin = children[0], 0, 0
        while place < len(data):
            node ^= data[place]
            if units[node] & 0x800000FF != data[place]:
                break
            place += 1
            ends, node = units[node] & 0x100, children[node]
            if ends:
                end, begin = place, units[node] & 0x7FFFFFFF
        return end, self._texts[begin : self._texts.index(b"\0", begin)] if end else b""
