"""BERT's tokenizer from `vocab.txt`, which older folders have for a `tokenizer.json`: one token a line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rung.errors import TokenizerError

VOCABULARY_FILE = "vocab.txt"
CLASSES = ("BertTokenizer", "DistilBertTokenizer")
_ROLES = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}


def definition_of_vocabulary(folder: Path, config: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """The text of a `tokenizer.json`, as transformers makes it of `vocab.txt`, and the special tokens by their roles.

    `config` is what the folder says of its tokenizer. Raises TokenizerError when the file cannot be read, a special
    token is not in it, or it has capital letters and `config` does not say whether texts keep theirs.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    path = folder / VOCABULARY_FILE
    try:
        vocabulary: dict[str, int] = models.WordPiece.read_file(str(path))
    except Exception as error:  # the Rust library raises plain `Exception` for a file that is not UTF-8
        raise TokenizerError(f"the vocabulary cannot be read ({error})", where=str(path)) from error
    roles = {role: _content(config.get(role)) or usual for role, usual in _ROLES.items()}
    if missing := [token for token in roles.values() if token not in vocabulary]:
        raise TokenizerError(f"the vocabulary lacks {', '.join(missing)}", where=str(path), hint=_NAME_THEM)
    lower_case = config.get("do_lower_case")
    if lower_case is None:
        capital = next((token for token in vocabulary if token != token.lower() and token[:1] != "["), None)
        if capital is not None:
            raise TokenizerError(
                f"the vocabulary has capital letters ({capital!r:.60}), and nothing says whether texts keep theirs",
                where=str(path),
                hint='write it into tokenizer_config.json: {"do_lower_case": false}',
            )
        lower_case = True
    made = Tokenizer(models.WordPiece(vocabulary, unk_token=roles["unk_token"]))
    made.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=lower_case,
    )
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece(prefix="##")
    made.post_processor = processors.BertProcessing(
        *((roles[role], vocabulary[roles[role]]) for role in ("sep_token", "cls_token"))
    )
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in roles.values()])
    definition: str = made.to_str()
    return definition, roles


def is_bert_vocabulary(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether the folder has a `vocab.txt` that BERT's own tokenizer reads; others of that name cut words their way."""
    if not (folder / VOCABULARY_FILE).is_file():
        return False
    model = folder / "config.json"
    said = json.loads(model.read_text(encoding="utf-8")) if model.is_file() else {}
    named = config.get("tokenizer_class") or said.get("tokenizer_class")
    return named is None or (isinstance(named, str) and named.removesuffix("Fast") in CLASSES)


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token


_NAME_THEM = (
    "name the vocabulary's own tokens in tokenizer_config.json: unk_token, sep_token, pad_token, cls_token, ..."
)
