"""Makes the files beside this one, a small Marian's tokenizer and what transformers does with it.

Run where sentencepiece and transformers are installed: python tests/data/marian/make.py. The sentences and rules are
Rung's own. As in the published folders, `vocab.json` has the pieces of both sides, the end token first and padding
last; some pieces of either side are not in it.
"""

from __future__ import annotations

import contextlib
import json
import random
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
NOUNS = {"dog": "Hund", "man": "Mann", "boy": "Junge", "tree": "Baum", "car": "Wagen", "fish": "Fisch"}
VERBS = {"sees": "sieht", "likes": "mag", "hears": "hört", "finds": "findet", "greets": "grüßt"}
FURTHER = {
    "It costs 1,000 or 2,000,000 coins...": "Es kostet 1.000 oder 2.000.000 Münzen...",
    "What? No!!! Well, 3/4 of it --- perhaps.": "Was? Nein!!! Naja, 3/4 davon --- vielleicht.",
    "He said 'aaa' and 'ooo', and then nothing at all.": "Er sagte 'aaa' und 'ooo', und dann gar nichts.",
    "The streets are beautiful in the evening (from 10:00 to 20:00).": "Die Straßen sind abends schön (10:00 - 20:00).",
}
RULES = {
    "e\u0301": "\u00e9",
    "u\u0308": "\u00fc",
    "u\u0308\u0301": "\u01d8",
    "\ufb01": "fi",
    "\uff21": "A",
    "\u2026": "...",
    "\u00bd": "1/2",
    "\u00a0": " ",
    "\t": " ",
    "\n": " ",
    "\u200b": "",
}
TEXTS = [
    "the dog sees the man.",
    "der Hund sieht den Mann.",
    ">>deu<< the boy likes the tree",
    ">>deu<<the boy likes the tree",
    ">>fra<< the boy likes the tree",
    " >>deu<< the boy >>nld<< likes",
    ">>deu< the boy",
    "",
    " ",
    "\u200b \t",
    "\u2581",
    "  two   spaces \u00a0 and\ttabs \n",
    "grüßt du die Straße? u\u0308ber e\u0301 u\u0308\u0301 \ufb01nds \uff21\u0301 \u00bd \u2026",
    "\u6771\u4eac \u6771 \u6771\u4eac\u90fd x\u6771\u4eacx \U0001f600\U0001f44d\U0001f3fd",
    "\u00df \u00df\u00df gr\u00fc\u00dft",
    "000 0000 00000 1000000000 aaa aaaa ooo ..... !!!! -----",
    "Quick, jumpy zebras vex BIG foxes; 12:34 + 56 = 78 % \\ ~",
    "the dog hears the car. " * 12,
]


def random_texts(count: int) -> list[str]:
    """Strings near the models' sentences and far from them, the same every time."""
    draw = random.Random(3)  # noqa: S311
    near = [*"aeoghl0.!-", "aa", "00", "ooo", "...", "the ", " dog", "Hund", "grüßt", " ", "1,000", "2.000"]
    parts = [*near, *near, *RULES, "\u0301", "\u00df", "\u6771", "\U0001f600", "\u2581", ">>deu<<", "Q", "\0"]
    return ["".join(draw.choices(parts, k=draw.randrange(16))) for _ in range(count)]


def main() -> None:
    """Write all files."""
    import sentencepiece
    from transformers import MarianTokenizer

    pairs = {
        f"the {a} {verb} the {b}.": f"der {x} {wort} den {y}."
        for a, x in NOUNS.items()
        for verb, wort in VERBS.items()
        for b, y in NOUNS.items()
    } | FURTHER
    models = {}
    with tempfile.TemporaryDirectory() as temporary, contextlib.chdir(temporary):  # the files keep these names
        rules = Path("rules.tsv")
        codes = [[" ".join(f"{ord(one):X}" for one in side) for side in rule] for rule in RULES.items()]
        rules.write_text("".join(f"{old}\t{new}\n" for old, new in codes), encoding="utf-8")
        for name, texts, size in (("source", list(pairs), 90), ("target", list(pairs.values()), 100)):
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter([*texts, *list(FURTHER if name == "source" else FURTHER.values()) * 9]),
                model_prefix=name,
                vocab_size=size,
                hard_vocab_limit=False,
                normalization_rule_tsv=str(rules),
                num_threads=1,
                minloglevel=2,
            )
            (HERE / f"{name}.spm").write_bytes(Path(f"{name}.model").read_bytes())
            models[name] = sentencepiece.SentencePieceProcessor(model_file=str(HERE / f"{name}.spm"))
    pieces = sorted({model.id_to_piece(i) for model in models.values() for i in range(3, model.get_piece_size())})
    tokens = [
        "</s>",
        "<unk>",
        *(piece for piece in pieces if piece not in ("y", "\u2581and", "x")),
        ">>deu<<",
        ">>nld<<",
    ]
    vocabulary = {token: number for number, token in enumerate([*tokens, "<pad>"])}
    (HERE / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    config = {"source_lang": "eng", "target_lang": "deu+nld", "tokenizer_class": "MarianTokenizer"}
    (HERE / "tokenizer_config.json").write_text(json.dumps(config) + "\n", encoding="utf-8")
    theirs = MarianTokenizer.from_pretrained(HERE)
    texts = TEXTS + random_texts(120)
    rows = [
        {
            "text": text,
            "source": (source := theirs(text)["input_ids"]),
            "target": (target := theirs(text_target=text)["input_ids"]),
            "decoded": [theirs.decode(ids, skip_special_tokens=True) for ids in (source, target)],
        }
        for text in texts
    ]
    lines = ",\n".join(json.dumps(row) for row in rows)
    (HERE / "expected.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
