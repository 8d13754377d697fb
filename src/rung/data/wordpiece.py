"""WordPiece, BERT's tokenizer (Devlin et al. 2019, section 3): words, and pieces of rarer words that begin with `##`.

It is what the ecosystem expects of a folder of BERT's architecture (tokenizers of BERT in other languages and llama.cpp
know no other), and where a word begins can be seen in its pieces, as whole-word masking needs it. Text is lower-cased;
accents stay, unlike in BERT's English vocabulary: in other languages they tell words apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rung.data.text_encoder import CONFIG, PAD, UNKNOWN, TextEncoder, clean
from rung.errors import TokenizerError

if TYPE_CHECKING:
    import tokenizers

CLASS, SEPARATOR, MASK = "[CLS]", "[SEP]", "[MASK]"
PREFIX = "##"
SPECIAL = (PAD, UNKNOWN, CLASS, SEPARATOR, MASK)
SMALLEST_VOCABULARY = 64
_CHARACTERS_SHARE = 0.25  # of the vocabulary, at most: each takes two entries, as a beginning and with ##


def train_wordpieces(texts: Iterable[str], *, vocab_size: int) -> TextEncoder:
    """Choose at most `vocab_size` pieces from `texts`; a text will be encoded as `[CLS] text [SEP]`.

    The outcome does not depend on the order of the texts. Of the library's trainer alone that is not true, nor does it
    give the same pieces twice (tokenizers 0.22): it numbers the `##` characters as a hash table happens to list them,
    and breaks ties between merges by these numbers. Here they are numbered before it begins.

    Raises TokenizerError when `vocab_size` is below 64.
    """
    from tokenizers import models, processors, trainers

    if vocab_size < SMALLEST_VOCABULARY:
        raise TokenizerError(
            f"a vocabulary of {vocab_size} tokens is too small", hint=f"give at least {SMALLEST_VOCABULARY}"
        )
    kept = [clean(text) for text in texts]
    learner = _pipeline(models.WordPiece(unk_token=UNKNOWN))
    characters = _characters(kept, learner, most=int(vocab_size * _CHARACTERS_SHARE))
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=2,  # a pair seen once would memorise that place instead of saving tokens elsewhere
        show_progress=False,
        special_tokens=[*SPECIAL, *characters, *(PREFIX + character for character in characters)],
        initial_alphabet=characters,
        limit_alphabet=len(characters),
        continuing_subword_prefix=PREFIX,
    )
    learner.train_from_iterator(kept, trainer=trainer)
    pieces = dict(sorted(learner.get_vocab().items(), key=lambda entry: entry[1]))
    tokenizer = _pipeline(models.WordPiece(pieces, unk_token=UNKNOWN))
    tokenizer.add_special_tokens(list(SPECIAL))
    brackets = [(token, pieces[token]) for token in (CLASS, SEPARATOR)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{CLASS} $A {SEPARATOR}", special_tokens=brackets)
    roles = {
        "pad_token": PAD,
        "unk_token": UNKNOWN,
        "cls_token": CLASS,
        "sep_token": SEPARATOR,
        "mask_token": MASK,
    }
    return TextEncoder(tokenizer.to_str(pretty=True), {**CONFIG, **roles}, where="the new tokenizer")


def _pipeline(model: tokenizers.models.Model) -> tokenizers.Tokenizer:
    """`model` behind BERT's way of cutting text into words, lower-cased, and in front of its way of joining them."""
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers

    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.BertNormalizer(lowercase=True, strip_accents=False)]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix=PREFIX)
    return tokenizer


def _characters(texts: list[str], tokenizer: tokenizers.Tokenizer, *, most: int) -> list[str]:
    """The `most` most frequent characters as the tokenizer sees them, in their own order; the others are unknown."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    seen: Counter[str] = Counter()
    for character, count in counts.items():
        for normal in tokenizer.normalizer.normalize_str(character):
            if not normal.isspace():
                seen[normal] += count
    return sorted(sorted(seen, key=lambda character: (-seen[character], character))[:most])


def choose_vocab_size(num_bytes: int) -> int:
    """One token for 50 bytes of text, from 1,024 to 8,192: rarer words are seen too seldom to be learned whole.

    Large texts get more, one for 8,000 bytes, up to 32,768: training on them takes so long that a larger output matrix
    is no burden.
    """
    small = min(max(num_bytes // 50, 1024), 8192)
    return max(small, min(num_bytes // 8000, 32_768))
