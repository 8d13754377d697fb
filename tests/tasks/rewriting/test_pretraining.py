"""Raw text before the pairs: both phases go on bit for bit, nothing held out is read, and gaps are never written."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rung.errors import DataError, RecipeError, RunFolderError
from rung.progress import SILENT
from rung.tasks.rewriting.plan import RewritingPlan
from rung.tasks.rewriting.preparation import prepare_pairs, read_split
from rung.tasks.rewriting.recipe import RewritingRecipe
from rung.tasks.rewriting.rewriter import load_rewriter
from rung.tasks.rewriting.summary import RewritingSummary
from rung.tasks.rewriting.training import plan, resume, train
from rung.training.checkpoint import latest_good
from rung.training.meter import SILENT_DISPLAY, Display, SilentDisplay, StepReport
from rung.training.schedule import Schedule

pytest.importorskip("sacrebleu")

NOUNS = {"dog": "Hund", "man": "Mann", "boy": "Junge", "tree": "Baum", "car": "Wagen"}
VERBS = {"sees": "sieht", "likes": "mag", "hears": "hört"}
PAIRS = [
    (f"the {one} {verb} the {other}", f"der {theirs} {v} der {mine}")
    for one, mine in NOUNS.items()
    for verb, v in VERBS.items()
    for other, theirs in NOUNS.items()
]
TEST, VALID = PAIRS[::9], PAIRS[4::9]
TRAIN = [pair for pair in PAIRS if pair not in TEST + VALID]
PRETRAINING_STEPS, STEPS = 10, 20
TINY: dict[str, Any] = {
    "net.hidden_size": 32,
    "net.num_hidden_layers": 1,
    "net.num_attention_heads": 2,
    "net.intermediate_size": 64,
    "net.dropout": 0.2,
    "tokenizer.vocab_size": 320,
    "training.tokens_per_batch": 256,
    "training.learning_rate": 0.01,
    "training.precision": "fp32",
    "training.validate_every": 4,
    "training.pretraining_share": PRETRAINING_STEPS / (PRETRAINING_STEPS + STEPS),
}


class Impatient(SilentDisplay):
    """Presses Ctrl-C at the n-th step of both phases together."""

    def __init__(self, step: int) -> None:
        self.left = step

    def update(self, report: StepReport) -> None:  # noqa: ARG002 - any step
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)


class Files:
    """Pairs in three parts, and raw text: a document a noun, a sentence a line."""

    def __init__(self, folder: Path) -> None:
        self.parts = {"train": TRAIN, "valid": VALID, "test": TEST}
        for name, rows in self.parts.items():
            lines = [json.dumps({"en": one, "de": other}) for one, other in rows]
            (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
        self.folder, self.raw = folder, folder / "raw"
        self.raw.mkdir()
        for noun in NOUNS:
            lines = [side for pair in PAIRS for side in pair if f"the {noun}" in pair[0]]
            (self.raw / f"{noun}.txt").write_text("\n".join(f"{line}." for line in lines), encoding="utf-8")

    @property
    def given(self) -> dict[str, Any]:
        return {
            "texts": [self.folder / "train.jsonl"],
            "valid": [self.folder / "valid.jsonl"],
            "test": [self.folder / "test.jsonl"],
            "source": "en",
            "target": "de",
            "threads": 1,
            "overrides": TINY,
        }

    def plan(self, **changes: Any) -> RewritingPlan:
        return plan(**{**self.given, "pretrain": [self.raw], "steps": PRETRAINING_STEPS + STEPS, **changes})

    def start(self, out: Path, *, display: Display = SILENT_DISPLAY, **changes: Any) -> RewritingSummary:
        given = {**self.given, "pretrain": [self.raw], "steps": PRETRAINING_STEPS + STEPS, **changes}
        return train(**given, out=out, display=display)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def whole(files: Files, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RewritingSummary]:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNG_CACHE", str(tmp_path_factory.mktemp("cache")))
        return folder, files.start(folder)


def equal_weights(one: Path, other: Path) -> bool:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def same_ends(one: Path, other: Path) -> bool:
    """Whether both phases of two runs ended with equal weights."""
    last = [f"pretraining/checkpoints/step-{PRETRAINING_STEPS:08d}", f"checkpoints/step-{STEPS:08d}"]
    return all(equal_weights(one / name, other / name) for name in last)


def test_both_phases_are_trained_and_told(files: Files, whole: tuple[Path, RewritingSummary]) -> None:
    folder, summary = whole
    assert (summary.ended, summary.steps) == ("finished", STEPS)
    assert summary.pretraining["steps"] == PRETRAINING_STEPS
    assert summary.to_json()["pretraining"]["files"] == [str(files.raw)]
    assert any("restoring hidden spans" in line for line in summary.lines())
    header = json.loads((folder / "rung.json").read_text(encoding="utf-8"))
    assert header["recipe"]["training"]["steps"] == PRETRAINING_STEPS + STEPS
    assert header["data"]["pretraining"]["sha256"] == summary.pretraining["sha256"]
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "## Pretraining" in card
    assert f"`{files.raw}`" in card
    log = (folder / "pretraining" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    validated = [line["validation"]["loss"] for line in map(json.loads, log) if "validation" in line]
    assert validated[-1] < validated[0]


def test_the_pairs_begin_with_the_weights_of_pretraining(files: Files, tmp_path: Path) -> None:
    """With a learning rate so small that nothing moves in the second phase, its end is the end of the first."""
    schedule = {"ramps": [{"start": 0, "value": 0.0, "end": 2, "target": 0.0}], "steps": 2, "decay_start": 0}
    settings = {**TINY, "training.schedule": {**schedule, "decay_fraction": 0.5}}
    files.start(tmp_path / "run", overrides=settings)
    first = tmp_path / "run" / "pretraining" / "checkpoints" / f"step-{PRETRAINING_STEPS:08d}"
    assert equal_weights(first, tmp_path / "run" / "checkpoints" / "step-00000002")


@pytest.mark.parametrize("step", [6, PRETRAINING_STEPS, PRETRAINING_STEPS + 7])
def test_a_run_interrupted_in_either_phase_goes_on_bit_for_bit(
    files: Files, whole: tuple[Path, RewritingSummary], tmp_path: Path, step: int
) -> None:
    run = tmp_path / "run"
    stopped = files.start(run, display=Impatient(step))
    assert (stopped.ended, stopped.records) == ("interrupted", ())
    assert stopped.pretraining["steps"] == min(step + 1, PRETRAINING_STEPS)  # the step under way is finished
    assert stopped.steps == max(0, step + 1 - PRETRAINING_STEPS) * (step != PRETRAINING_STEPS)
    done = resume(run)
    assert (done.ended, done.steps, done.pretraining) == ("finished", STEPS, whole[1].pretraining)
    assert same_ends(whole[0], run)
    assert equal_weights(whole[0], run)


def test_a_run_killed_between_the_phases_does_not_repeat_the_first(
    whole: tuple[Path, RewritingSummary], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole[0], run)
    shutil.rmtree(run / "checkpoints")
    header = run / "rung.json"
    header.write_text(header.read_text(encoding="utf-8").replace('"finished"', '"training"'), encoding="utf-8")
    steps = Impatient(0)
    resume(run, display=steps)
    assert -steps.left == STEPS
    assert same_ends(whole[0], run)


def test_the_stored_recipe_repeats_both_phases(whole: tuple[Path, RewritingSummary], tmp_path: Path) -> None:
    train(recipe=whole[0], out=tmp_path / "again")
    assert same_ends(whole[0], tmp_path / "again")


def test_no_held_out_text_is_read(files: Files) -> None:
    recipe = files.plan().recipe
    prepared = prepare_pairs(recipe, read_split(recipe.pairs, seed=recipe.seed, progress=SILENT), SILENT)
    assert prepared.text is not None
    read = "\n".join(prepared.text.text.train)
    assert not [text for pair in TEST + VALID for text in pair if text in read]
    assert [text for pair in TRAIN for text in pair if text in read]
    assert any("documents left out of pretraining" in remark for remark in prepared.remarks)


def test_changed_text_stops_a_resumed_run(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.start(tmp_path / "run", display=Impatient(3))
    (files.raw / "more.txt").write_text("another text\n", encoding="utf-8")
    with pytest.raises(RunFolderError, match="texts to pretrain on have changed"):
        resume(tmp_path / "run")


@pytest.mark.parametrize("net", ["transformer", "lstm"])
def test_sentinels_are_never_written(
    files: Files, whole: tuple[Path, RewritingSummary], tmp_path: Path, net: str
) -> None:
    folder = whole[0]
    if net == "lstm":
        folder = tmp_path / "run"
        files.start(folder, net=net, overrides={key: TINY[key] for key in TINY if "heads" not in key}, steps=4)
    rewriter = load_rewriter(folder)
    sentinels = rewriter.tokenizer.sentinels
    assert len(sentinels) == 7  # 128 tokens lose 19 in 6 spans, and one more ends the last
    settings = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    assert all([token] in settings["bad_words_ids"] for token in sentinels)
    if net == "transformer":  # in transformers the same weights write the same
        transformers = pytest.importorskip("transformers")
        model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        text = PAIRS[1][0]
        with torch.no_grad():
            model.final_logits_bias[0, list(sentinels)] = 100.0
        written = model.generate(**tokenizer(text, return_tensors="pt"), num_beams=4, max_length=20)
        assert not set(written[0].tolist()) & set(sentinels)
    net_ = rewriter.net
    with torch.no_grad():
        net_.lm_head.bias = torch.nn.Parameter(torch.zeros(net_.config.vocab_size))
        net_.lm_head.bias[list(sentinels)] = 100.0
    biased = type(rewriter)(folder, net_, rewriter.tokenizer, rewriter.beam)
    ids = [one.tolist() for one in [rewriter.tokenizer.encode([PAIRS[1][0]]).ids]]
    for found in biased._writer.search(ids):
        assert all(not set(one.token_ids) & set(sentinels) for one in found)


def test_without_raw_text_nothing_is_added(files: Files) -> None:
    made = files.plan(pretrain=())
    assert (made.pretraining_steps, made.steps) == (0, PRETRAINING_STEPS + STEPS)
    assert made.recipe.training.pretraining_schedule is None
    prepared = prepare_pairs(made.recipe, read_split(made.recipe.pairs, seed=made.recipe.seed, progress=SILENT), SILENT)
    assert prepared.text is None
    assert prepared.tokenizer.sentinels == ()


@pytest.mark.usefixtures("ticking_clock")
def test_minutes_are_shared(files: Files) -> None:
    made = files.plan(steps=None, minutes=0.3)
    assert made.pretraining_steps > 0
    assert made.recipe.training.steps == made.pretraining_steps + made.steps
    assert any("pretraining" in line for line in made.lines())


@pytest.mark.usefixtures("ticking_clock")
def test_the_schedule_follows_a_deadline_in_both_phases(files: Files, tmp_path: Path) -> None:
    """A step of the loop reads the clock more often than a step of the plan did: both phases must end earlier."""
    done = files.start(tmp_path / "run", steps=None, minutes=0.3)
    before, after = latest_good(tmp_path / "run" / "pretraining", print), latest_good(tmp_path / "run", print)
    assert before is not None
    assert after is not None
    for phase in (before.state, after.state):
        assert phase.revisions
        assert phase.revisions[-1].new_steps == phase.step < phase.revisions[0].old_steps
    stored = RewritingRecipe.load(tmp_path / "run").training
    assert stored.steps == before.state.step + after.state.step
    assert (done.pretraining["steps"], done.steps) == (before.state.step, after.state.step)
    assert Schedule.from_json(stored.pretraining_schedule or {}) == before.state.schedule


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        ([], "nothing at this path"),
        ([""], "no text is left"),
        (["".join(f"{one}.\n" for pair in part for one in pair) for part in (TEST, VALID)], "every line"),
    ],
)
def test_text_that_cannot_be_pretrained_on_is_refused(
    files: Files, tmp_path: Path, texts: list[str], told: str
) -> None:
    raw = [tmp_path / f"{number}.txt" for number in range(max(len(texts), 1))]
    for path, text in zip(raw, texts, strict=False):
        path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=told):
        files.start(tmp_path / "run", pretrain=raw)
    assert not (tmp_path / "run").exists()


def test_one_step_is_too_few_for_two_phases(files: Files, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be shared"):
        files.start(tmp_path / "run", steps=1)
