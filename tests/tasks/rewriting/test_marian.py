"""Marian's folders as they are published, with two SentencePiece models: used, tuned and handed on."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from typer.testing import CliRunner

import rung
from rung.cli.main import app
from rung.errors import RunFolderError, TokenizerError
from rung.export.exporting import export_model
from rung.export.source import open_source
from rung.export.verify import compare_export
from rung.nets.lora import LoraConfig
from rung.progress import SILENT
from rung.tasks.rewriting.preparation import read_split
from rung.tasks.rewriting.rewriter import Rewriter, load_rewriter
from rung.tasks.rewriting.tuning_base import TuningBase
from rung.tasks.rewriting.tuning_plan import TuningPairs
from rung.tasks.rewriting.tuning_recipe import RewriteTuningRecipe, TunedPairsSection
from rung.tasks.rewriting.tuning_summary import RewritingTuned
from rung.tasks.tuning.method import TuningMethod
from rung.tasks.tuning.tune import resume, tune
from rung.training.meter import SILENT_DISPLAY, Display, SilentDisplay, StepReport

pytest.importorskip("sacrebleu")
pytest.importorskip("sentencepiece")

FILES = ("source.spm", "target.spm", "vocab.json", "tokenizer_config.json")
TEXTS = ["the dog sees the man.", "the boy likes \u6771\u4eac", ">>deu<< a tree hears 1,000 cars...", "aaa ooo"]
NOUNS = {"dog": "Hund", "man": "Mann", "boy": "Junge", "tree": "Baum", "car": "Wagen"}
VERBS = {"sees": "sieht", "likes": "mag", "hears": "h\u00f6rt"}


@pytest.fixture(scope="module")
def marian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as those of Helsinki-NLP are: the configuration's keys, an output bias, and no tokenizer.json."""
    folder = tmp_path_factory.mktemp("models") / "opus-mt-en-de"
    folder.mkdir()
    for name in FILES:
        shutil.copyfile(Path(__file__).parents[2] / "data" / "marian" / name, folder / name)
    size = len(json.loads((folder / "vocab.json").read_text(encoding="utf-8")))
    sides = {"layers": 1, "attention_heads": 2, "ffn_dim": 48}
    config = transformers.MarianConfig(
        vocab_size=size,
        d_model=24,
        **{f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in sides.items()},
        max_position_embeddings=96,
        activation_function="swish",
        scale_embedding=True,
        pad_token_id=size - 1,
        decoder_start_token_id=size - 1,
        eos_token_id=0,
        bos_token_id=0,
        normalize_before=False,
        normalize_embedding=False,
        static_position_embeddings=True,
        add_bias_logits=False,
        add_final_layer_norm=False,
        extra_pos_embeddings=size,
    )
    torch.manual_seed(7)
    net = transformers.MarianMTModel(config)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "embed_positions" not in name:
                parameter.add_(0.2 * torch.randn(parameter.shape))
        net.final_logits_bias.normal_()
    said = {"bad_words_ids": [[size - 1]], "forced_eos_token_id": 0, "renormalize_logits": True}
    net.generation_config.update(num_beams=4, max_length=30, **said)
    net.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [
        {"en": f"the {a} {v} the {b}.", "de": f"der {x} {w} der {y}."}
        for a, x in NOUNS.items()
        for v, w in VERBS.items()
        for b, y in NOUNS.items()
    ]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return file


def written_there(folder: Path, texts: list[str], **options: Any) -> list[str]:
    """What transformers writes for texts, which its own tokenizer cuts as Rung's does."""
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    assert type(model) is transformers.MarianMTModel
    with pytest.warns(UserWarning, match="sacremoses"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ours = load_rewriter(folder).tokenizer
    written = []
    for text in texts:
        source = torch.tensor([tokenizer(text)["input_ids"]])
        assert ours.encode([text]).ids.tolist() == source[0].tolist()
        found = model.generate(input_ids=source, attention_mask=torch.ones_like(source), **options)[0]
        written.append(tokenizer.decode(found, skip_special_tokens=True))
    return written


def test_a_published_folder_writes_the_texts_of_transformers(marian: Path) -> None:
    rewriter = rung.load(marian)
    assert isinstance(rewriter, Rewriter)
    assert rewriter.beam.num_beams == 4
    assert rewriter.rewrite(TEXTS) == written_there(marian, TEXTS)
    greedy = rewriter.rewrite(TEXTS, beams=1)
    assert greedy == written_there(marian, TEXTS, num_beams=1)
    assert all(greedy)
    assert rewriter.rewrite(TEXTS[:1], prefix=">>nld<< ") == written_there(marian, [">>nld<< " + TEXTS[0]])


def test_the_command_line_rewrites_with_it(marian: Path) -> None:
    run = CliRunner().invoke(app, ["predict", str(marian), TEXTS[0], "--json"])
    assert run.exit_code == 0, run.output
    (found,) = json.loads(run.stdout)["predictions"]
    assert [found[0]["text"]] == written_there(marian, TEXTS[:1])


def start(base: Path, pairs: Path, out: Path, *, display: Display = SILENT_DISPLAY, **wishes: Any) -> RewritingTuned:
    settings = {"training.tokens_per_batch": 256, "training.precision": "fp32", "training.learning_rate": 0.005}
    settings |= {"beam.num_beams": 2, "training.measured": 8, "training.dropout": 0.1, **wishes.pop("overrides", {})}
    wishes = {"source": "en", "target": "de", "threads": 1, "steps": 12, **wishes}
    tuned = tune(base, [pairs], task="rewrite", out=out, overrides=settings, display=display, **wishes)
    assert isinstance(tuned, RewritingTuned)
    return tuned


def test_each_side_of_the_pairs_is_cut_by_its_own_model(marian: Path, pairs: Path) -> None:
    named = TunedPairsSection(files=(str(pairs),), source="en", target="de")
    base, split = TuningBase.open(str(marian)), read_split(named, seed=1, progress=SILENT)
    recipe = RewriteTuningRecipe(base=str(marian), pairs=named)
    encoded = TuningPairs.encode(recipe, base, split).train
    assert encoded.sources.ids.tolist() == base.tokenizer.encode(split.train.sources).ids.tolist()
    assert encoded.targets.ids.tolist() == base.tokenizer.encode_targets(split.train.targets).ids.tolist()
    assert encoded.targets.ids.tolist() != base.tokenizer.encode(split.train.targets).ids.tolist()


class Impatient(SilentDisplay):
    """Presses Ctrl-C at step 8."""

    def update(self, report: StepReport) -> None:
        if report.step == 8:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("method", [TuningMethod(), TuningMethod("lora", LoraConfig(r=4))], ids=["full", "lora"])
def test_it_is_tuned_goes_on_after_a_crash_and_is_handed_on(
    method: TuningMethod, marian: Path, pairs: Path, tmp_path: Path
) -> None:
    whole, parts, exported = tmp_path / "whole", tmp_path / "parts", tmp_path / "exported"
    done = start(marian, pairs, whole, method=method)
    assert done.ended == "finished"
    assert start(marian, pairs, parts, method=method, display=Impatient()).ended == "interrupted"
    assert rung.load(parts).rewrite(TEXTS)  # type: ignore[union-attr]
    assert resume(parts).ended == "finished"
    name = "adapter_model.safetensors" if method.kind == "lora" else "model.safetensors"
    first, second = (load_file(run / name) for run in (whole, parts))
    assert all(torch.equal(first[key], second[key]) for key in first)

    report = export_model(whole, exported, to="hf", verify=True)
    for folder in (whole, parts, exported):
        for file in FILES:
            assert (folder / file).read_bytes() == (marian / file).read_bytes()
    listed = json.loads((whole / "rung.json").read_text(encoding="utf-8"))["files"]
    assert set(FILES) <= listed.keys()
    ours, theirs = report.comparisons
    assert ours.same_tokens == ours.tokenised
    assert report.verified
    assert theirs.same_tokens == theirs.tokenised
    assert (theirs.largest_difference or 0) < 1e-4
    written = written_there(exported, TEXTS)
    assert load_rewriter(exported).rewrite(TEXTS) == written
    most = json.loads((whole / "generation_config.json").read_text(encoding="utf-8"))["max_length"] - 1
    assert [found[0].text for found in load_rewriter(whole).rewrite_many(TEXTS, max_tokens=most)] == written
    card = (exported / "README.md").read_text(encoding="utf-8")
    assert "tuned to rewrite en to de" in card


def test_an_export_with_another_model_for_targets_is_noticed(marian: Path, tmp_path: Path) -> None:
    exported = tmp_path / "exported"
    export_model(marian, exported, to="hf", verify=False)
    shutil.copyfile(exported / "source.spm", exported / "target.spm")
    with open_source(marian) as source:
        for found in compare_export(source, exported, "hf", "f32"):
            assert (found.same_tokens or 0) < found.tokenised


def test_tuning_teaches_it(marian: Path, pairs: Path, tmp_path: Path) -> None:
    done = start(marian, pairs, tmp_path / "run", steps=120, overrides={"training.learning_rate": 0.01})
    gained = next(record for record in done.records if record.name == "bleu_gained")
    assert gained.value is not None
    assert gained.value > 20


@pytest.mark.parametrize(
    ("damage", "kind", "said"),
    [
        (lambda f: (f / "target.spm").unlink(), TokenizerError, "the folder has no target.spm"),
        (lambda f: (f / "source.spm").write_bytes(b"\0" * 9), TokenizerError, "not a whole SentencePiece model"),
        (lambda f: grow(f / "vocab.json"), TokenizerError, "the network only"),
        (lambda f: say(f / "config.json", share_encoder_decoder_embeddings=False), RunFolderError, "share_encoder_dec"),
        (lambda f: say(f / "config.json", decoder_vocab_size=99), RunFolderError, "decoder_vocab_size 99 differs"),
        (lambda f: say(f / "tokenizer_config.json", separate_vocabs=True), TokenizerError, "a vocabulary of its own"),
    ],
)
def test_folders_that_cannot_be_used_are_refused_when_opened(
    damage: Any, kind: type[Exception], said: str, marian: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(marian, folder)
    damage(folder)
    for open_it in (rung.load, lambda path: TuningBase.open(str(path))):
        with pytest.raises(kind, match=said):
            open_it(folder)


def say(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | entries), encoding="utf-8")


def grow(path: Path) -> None:
    say(path, one_more=len(json.loads(path.read_text(encoding="utf-8"))))
