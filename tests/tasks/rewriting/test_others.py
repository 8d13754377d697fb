"""Folders of transformers' T5, BART and Marian as rewriters: the same texts, by Python and on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from typer.testing import CliRunner

import rung
from rung.cli.main import app
from rung.data.pair_tokenizer import PairTokenizer
from rung.errors import GenerationError, RunFolderError, TokenizerError
from rung.tasks.rewriting.rewriter import Rewriter, load_rewriter
from rung.tasks.rewriting.tuning_base import TuningBase

TEXTS = [
    "the dog sees the man.",
    "a tree hears nothing at all, and likes it!",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich",
    "the summary of a long text is a short text",
]
UNKNOWN = "<unk>"
WORDS = [text for text in TEXTS for _ in range(3)]


def unigram() -> Tokenizer:
    """A tokenizer as T5 has it: Unigram over words with a mark before them, an end token after each text."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>", *(f"<extra_id_{number}>" for number in range(4))]
    trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=special, unk_token=UNKNOWN, show_progress=False)
    tokenizer.train_from_iterator(WORDS, trainer=trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def byte_pairs() -> Tokenizer:
    """A tokenizer as BART has it: byte-level BPE, a start and an end token around each text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(WORDS, trainer=trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer


def write_folder(kind: str, folder: Path, **generation: Any) -> Path:
    """A folder as transformers writes it, with weights that are random and large, so that texts differ."""
    torch.manual_seed(4)
    tokenizer = unigram() if kind == "t5" else byte_pairs()
    vocabulary = tokenizer.get_vocab_size()
    if kind == "t5":
        special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
        net = transformers.T5ForConditionalGeneration(
            transformers.T5Config(
                vocab_size=vocabulary + 6,  # round numbers, as the published ones have
                d_model=16,
                d_kv=4,
                d_ff=24,
                num_layers=1,
                num_heads=2,
                decoder_start_token_id=0,
            )
        )
    else:
        special = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>", "sep_token": "</s>"}
        net = transformers.BartForConditionalGeneration(
            transformers.BartConfig(
                vocab_size=vocabulary,
                d_model=16,
                encoder_layers=1,
                decoder_layers=1,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
                encoder_ffn_dim=24,
                decoder_ffn_dim=24,
                max_position_embeddings=96,
            )
        )
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.25 * torch.randn(p.shape))
    net.generation_config.update(num_beams=3, max_length=20, **generation)
    net.save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["t5", "bart"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(request.param, tmp_path_factory.mktemp(request.param), no_repeat_ngram_size=2)


def written_there(folder: Path, texts: list[str], prefix: str = "") -> list[str]:
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    read = tokenizer([prefix + text for text in texts], return_tensors="pt", padding=True)
    never = [[number] for number in range(len(tokenizer), model.config.vocab_size)]  # no texts belong to those
    found = model.generate(
        input_ids=read["input_ids"], attention_mask=read["attention_mask"], bad_words_ids=never or None
    )
    return tokenizer.batch_decode(found, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def test_a_folder_of_transformers_writes_the_same_texts(folder: Path) -> None:
    rewriter = rung.load(folder)
    assert isinstance(rewriter, Rewriter)
    assert rewriter.beam.num_beams == 3
    assert rewriter.rewrite(TEXTS) == written_there(folder, TEXTS)


def test_a_prefix_stands_before_every_text(folder: Path) -> None:
    rewriter = load_rewriter(folder)
    expected = written_there(folder, TEXTS, "summarize: ")
    assert rewriter.rewrite(TEXTS, prefix="summarize: ") == expected != rewriter.rewrite(TEXTS)
    rewriter.prefix = "summarize: "
    assert rewriter.rewrite(TEXTS) == expected


def test_texts_are_tokenised_as_there_and_end_with_the_end_token(folder: Path) -> None:
    tokenizer, theirs = PairTokenizer.load(folder), transformers.AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer.encode(TEXTS)
    ours = [encoded.ids[start : start + n].tolist() for start, n in zip(encoded.starts, encoded.lengths, strict=True)]
    assert ours == theirs(TEXTS)["input_ids"]
    assert {ids[-1] for ids in ours} == {theirs.eos_token_id}


def test_the_command_line_rewrites_with_such_a_folder(tmp_path: Path) -> None:
    folder = write_folder("t5", tmp_path / "t5", no_repeat_ngram_size=2)
    run = CliRunner().invoke(app, ["predict", str(folder), TEXTS[0], "--prefix", "summarize: ", "--json"])
    assert run.exit_code == 0, run.output
    (found,) = json.loads(run.stdout)["predictions"]
    assert found[0]["text"] == written_there(folder, TEXTS[:1], "summarize: ")[0]
    (tmp_path / "in.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    run = CliRunner().invoke(app, ["predict", str(folder), "-i", str(tmp_path / "in.txt"), "-o", str(tmp_path / "out")])
    assert run.exit_code == 0, run.output
    assert (tmp_path / "out").read_text(encoding="utf-8").splitlines() == written_there(folder, TEXTS)


def test_a_text_longer_than_the_network_reads_is_refused(tmp_path: Path) -> None:
    rewriter = load_rewriter(write_folder("bart", tmp_path))
    with pytest.raises(GenerationError, match="the network reads from 1 to 96"):
        rewriter.rewrite("word " * 90)


@pytest.mark.parametrize(
    ("files", "said", "hint"),
    [
        (("source.spm", "target.spm", "vocab.json"), "cannot read vocab.json", "another copy"),
        (("spiece.model",), "only spiece.model", "AutoTokenizer"),
        (("vocab.json", "merges.txt"), "only merges.txt, vocab.json", "AutoTokenizer"),
        ((), "the folder has no tokenizer.json", "copy it"),
    ],
)
def test_a_folder_without_tokenizer_json_is_refused_with_the_way_out(
    files: tuple[str, ...], said: str, hint: str, tmp_path: Path
) -> None:
    write_folder("t5", tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    for name in files:
        (tmp_path / name).write_bytes(b"\0")
    with pytest.raises(TokenizerError, match=said) as refused:
        rung.load(tmp_path)
    assert hint in str(refused.value.hint)


def test_settings_that_cannot_be_honoured_are_refused_when_loading(tmp_path: Path) -> None:
    write_folder("t5", tmp_path)
    path = tmp_path / "generation_config.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**stored, "repetition_penalty": 2.0}), encoding="utf-8")
    with pytest.raises(RunFolderError, match=r"repetition_penalty = 2\.0 is not supported"):
        rung.load(tmp_path)


def test_settings_of_a_summariser_do_not_force_long_targets_on_short_pairs(tmp_path: Path) -> None:
    base = TuningBase.open(
        str(write_folder("bart", tmp_path, min_length=15, no_repeat_ngram_size=3, forced_bos_token_id=0))
    )
    assert base.settings.rules.min_tokens == 14
    rules = base.tuned_settings(shortest=6).rules
    assert (rules.min_tokens, rules.no_repeat_ngram_size, rules.forced_first) == (5, 3, 0)
