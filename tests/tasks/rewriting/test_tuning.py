"""Tuning on pairs: what was learned before is of use, both families of folders, resume bit for bit, refusals."""

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
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import rung
from rung.errors import DataError, PlanError, RunFolderError, UsageError
from rung.nets.lora import LoraConfig
from rung.tasks.rewriting.rewriter import load_rewriter
from rung.tasks.rewriting.training import train
from rung.tasks.rewriting.tuning_summary import RewritingTuned
from rung.tasks.tuning.method import TuningMethod
from rung.tasks.tuning.tune import plan, resume, tune
from rung.training.meter import SILENT_DISPLAY, Display, SilentDisplay, StepReport

pytest.importorskip("sacrebleu")

NOUNS = {"dog": "Hund", "man": "Mann", "boy": "Junge", "tree": "Baum", "car": "Wagen"}
VERBS = {"sees": "sieht", "likes": "mag", "hears": "hört"}
SETTINGS: dict[str, Any] = {
    "training.tokens_per_batch": 256,
    "training.precision": "fp32",
    "training.dropout": 0.0,
    "training.learning_rate": 0.005,
    "beam.num_beams": 2,
}
LORA = TuningMethod("lora", LoraConfig(r=4))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """English to German that turns words around (the base learns that), and to German as it is (what is tuned to)."""
    folder = tmp_path_factory.mktemp("pairs")
    rows = [
        {"en": f"the {a} {v} the {b}.", "turned": f"der {y} {w} der {x}.", "de": f"der {x} {w} der {y}."}
        for a, x in NOUNS.items()
        for v, w in VERBS.items()
        for b, y in NOUNS.items()
    ]
    held_out = rows[::6] + rows[3::6]
    parts = {"train": [row for row in rows if row not in held_out], "valid": rows[::6], "test": rows[3::6]}
    for name, some in parts.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, some)), encoding="utf-8")
    return {name: [folder / f"{name}.jsonl"] for name in parts}


@pytest.fixture(scope="module")
def marian(files: dict[str, list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that `rung train` makes."""
    out = tmp_path_factory.mktemp("bases") / "marian"
    small = {
        "net.hidden_size": 32,
        "net.num_hidden_layers": 1,
        "net.num_attention_heads": 2,
        "net.intermediate_size": 64,
        "net.dropout": 0.0,
        "tokenizer.vocab_size": 320,
        "training.tokens_per_batch": 256,
        "training.learning_rate": 0.01,
        "training.precision": "fp32",
        "training.validate_every": 60,
    }
    parts: dict[str, Any] = {"valid": files["valid"], "test": files["test"]}
    train(files["train"], **parts, source="en", target="turned", steps=120, out=out, threads=1, overrides=small)
    return out


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base as transformers writes it, with weights as they are drawn."""
    folder = tmp_path_factory.mktemp("bases") / "t5"
    words = ["rewrite", ":", "the", "der", ".", *NOUNS, *NOUNS.values(), *VERBS, *VERBS.values()]
    vocabulary = {word: number for number, word in enumerate(["<pad>", "</s>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=next(w for w, n in vocabulary.items() if n == 2)))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    shape = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
    torch.manual_seed(1)
    config = transformers.T5Config(vocab_size=32, feed_forward_proj="gated-gelu", tie_word_embeddings=False, **shape)
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def start(
    base: Path, files: dict[str, list[Path]], out: Path, *, display: Display = SILENT_DISPLAY, **wishes: Any
) -> RewritingTuned:
    overrides = {**SETTINGS, **wishes.pop("overrides", {})}
    tuned = tune(
        base,
        files["train"],
        task="rewrite",
        valid=files["valid"],
        test=files["test"],
        source="en",
        target="de",
        out=out,
        threads=1,
        overrides=overrides,
        display=display,
        **{"steps": 60, **wishes},
    )
    assert isinstance(tuned, RewritingTuned)
    return tuned


def value_of(summary: RewritingTuned, name: str) -> float:
    (record,) = (record for record in summary.records if record.name == name)
    assert record.value is not None
    return record.value


@pytest.mark.parametrize("method", [None, LORA], ids=["full", "lora"])
def test_a_translator_learns_to_leave_the_order_alone(
    method: TuningMethod | None, marian: Path, files: dict[str, list[Path]], tmp_path: Path
) -> None:
    done = start(marian, files, tmp_path / "run", method=method)
    assert done.ended == "finished"
    assert value_of(done, "bleu") > 90 > value_of(done, "bleu_before")
    assert value_of(done, "bleu_gained") == pytest.approx(value_of(done, "bleu") - value_of(done, "bleu_before"))
    gained = next(record for record in done.records if record.name == "bleu_gained")
    assert gained.interval is not None
    assert gained.interval.low > 0
    assert (done.trained < done.parameters) == (method is not None)
    rewriter = rung.load(tmp_path / "run")
    assert rewriter.rewrite(["the boy likes the dog."]) == ["der Junge mag der Hund."]  # type: ignore[union-attr]
    header = json.loads((tmp_path / "run" / "rung.json").read_text(encoding="utf-8"))
    assert header["parent"]["architecture"] == "MarianMTModel"
    assert (tmp_path / "run" / "adapter_model.safetensors").is_file() == (method is not None)
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert "tuned to rewrite en to de" in card
    assert header["parent"]["weights_sha256"] in card


def test_a_t5_is_tuned_with_its_prefix_and_opens_in_transformers(
    t5: Path, files: dict[str, list[Path]], tmp_path: Path
) -> None:
    done = start(
        t5, files, tmp_path / "run", prefix="rewrite : ", steps=150, overrides={"training.learning_rate": 0.01}
    )
    assert value_of(done, "bleu_gained") > 10
    rewriter = load_rewriter(tmp_path / "run")
    assert rewriter.prefix == "rewrite : "
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "run").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "run")
    assert type(model) is transformers.T5ForConditionalGeneration
    text = "the man hears the boy."
    read = tokenizer("rewrite : " + text, return_tensors="pt")
    written = model.generate(input_ids=read["input_ids"], attention_mask=read["attention_mask"])
    assert tokenizer.batch_decode(written, skip_special_tokens=True) == rewriter.rewrite(text)


class Impatient(SilentDisplay):
    """Presses Ctrl-C at step 8."""

    def update(self, report: StepReport) -> None:
        if report.step == 8:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("method", [TuningMethod(layer_decay=0.8), LORA], ids=["full", "lora"])
def test_an_interrupted_run_goes_on_bit_for_bit(
    method: TuningMethod, marian: Path, files: dict[str, list[Path]], tmp_path: Path
) -> None:
    wishes: dict[str, Any] = {"method": method, "steps": 20}
    wishes["overrides"] = {"training.dropout": 0.2, "training.validate_every": 5}
    start(marian, files, tmp_path / "whole", **wishes)
    first = start(marian, files, tmp_path / "parts", display=Impatient(), **wishes)
    assert first.ended == "interrupted"
    assert first.records == ()
    assert rung.load(tmp_path / "parts").rewrite(["the dog."])  # type: ignore[union-attr]
    again = resume(tmp_path / "parts")
    assert again.ended == "finished"
    name = "adapter_model.safetensors" if method.kind == "lora" else "model.safetensors"
    whole, parts = (load_file(tmp_path / run / name) for run in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    with pytest.raises(RunFolderError, match="this run is finished"):
        resume(tmp_path / "parts")


def test_another_base_or_other_pairs_are_noticed_when_going_on(
    t5: Path, files: dict[str, list[Path]], tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(t5, base)
    pairs = {name: [Path(shutil.copy(path, tmp_path)) for path in paths] for name, paths in files.items()}
    start(base, pairs, tmp_path / "run", display=Impatient(), steps=20)
    text = pairs["train"][0].read_text(encoding="utf-8")
    pairs["train"][0].write_text(text.replace("dog", "cat"), encoding="utf-8")
    with pytest.raises(RunFolderError, match="the data changed since this run was planned"):
        resume(tmp_path / "run")
    pairs["train"][0].write_text(text, encoding="utf-8")
    net = transformers.T5ForConditionalGeneration.from_pretrained(base)
    with torch.no_grad():
        net.shared.weight[5] += 1
    net.save_pretrained(base)
    with pytest.raises(RunFolderError, match="the base changed since this run was planned"):
        resume(tmp_path / "run")


def test_a_plan_says_what_will_be_done_and_trains_nothing(t5: Path, files: dict[str, list[Path]]) -> None:
    made = plan(t5, files["train"], task="rewrite", source="en", target="de", epochs=2, threads=1, overrides=SETTINGS)
    assert made.epochs == pytest.approx(2.0)
    assert made.recipe.training.schedule is not None
    assert any("parameters are trained (full)" in line for line in made.lines())
    assert json.dumps(made.to_json())


def test_no_minutes_no_plan(t5: Path, files: dict[str, list[Path]]) -> None:
    with pytest.raises(PlanError, match="no step of training fits"):
        plan(t5, files["train"], task="rewrite", source="en", target="de", minutes=0.001, threads=1, overrides=SETTINGS)


def decoder(folder: Path) -> Path:
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.LlamaConfig(vocab_size=32, **shape)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def encoder(folder: Path) -> Path:
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    transformers.BertModel(transformers.BertConfig(vocab_size=32, **shape)).save_pretrained(folder)
    return folder


def test_bases_of_other_kinds_are_refused_with_the_way_out(files: dict[str, list[Path]], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a llama continues one text and does not rewrite another") as refused:
        start(decoder(tmp_path / "llama"), files, tmp_path / "run")
    assert "--task chat" in str(refused.value.hint)
    with pytest.raises(UsageError, match="a bert cannot rewrite texts") as refused:
        start(encoder(tmp_path / "bert"), files, tmp_path / "run")
    assert "t5" in str(refused.value.hint)


def test_what_cannot_be_meant_is_refused(t5: Path, files: dict[str, list[Path]], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no new head to train on a frozen body"):
        start(t5, files, tmp_path / "run", method=TuningMethod("frozen"))
    with pytest.raises(UsageError, match="no pairs to tune on"):
        tune(t5, [], task="rewrite")
    with pytest.raises(DataError, match="longer than 2 tokens"):
        start(t5, files, tmp_path / "run", overrides={"training.longest": 2})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="the output folder is not empty"):
        start(t5, files, tmp_path / "full")
