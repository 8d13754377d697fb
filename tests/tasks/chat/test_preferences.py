"""`rung tune --task prefer`: the objective by hand, a model that changes its mind, resumed bit for bit."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from rung.data.conversations import Message
from rung.data.preference_rows import PairBatches, encode_pairs
from rung.data.preferences import Preference, read_preferences
from rung.errors import DataError, RunFolderError, UsageError
from rung.nets.lora import LoraConfig
from rung.objectives.cross_entropy import IGNORED
from rung.objectives.preference import DirectPreference
from rung.tasks.chat.preference_data import REFERENCE
from rung.tasks.chat.preference_summary import LIKELIER, LIKELIER_BY_TOKEN, before, gain
from rung.tasks.chat.preparation import open_base
from rung.tasks.tuning.method import TuningMethod
from rung.tasks.tuning.summary import Tuned
from rung.tasks.tuning.tune import plan, resume, tune
from rung.training.meter import SilentDisplay, StepReport

WORDS = ["sun", "moon", "star", "sea", "wind", "rain", "snow", "fire", "tree", "bird", "fish", "stone"]
LORA = TuningMethod("lora", LoraConfig(r=4))
SETTINGS: dict[str, Any] = {
    "training.precision": "fp32",
    "training.threads": 1,
    "training.batch_size": 8,
    "training.micro_batch_size": 4,
    "training.learning_rate": 2e-3,
    "measuring.prompts": 4,
    "measuring.max_tokens": 12,
    "data.test_share": 0.2,
}


@pytest.fixture(scope="module")
def talker(base: Path, talks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that has learned to repeat the last word."""
    settings = {"training.learning_rate": 0.01, "training.context_length": 120, "measuring.prompts": 0}
    shared = {name: SETTINGS[name] for name in ("training.precision", "training.threads", "data.test_share")}
    out = tmp_path_factory.mktemp("talker") / "run"
    return tune(
        base, [talks], task="chat", out=out, steps=60, overrides=settings | shared | {"training.batch_size": 4}
    ).run


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs in which the answer with an exclamation mark is the better one."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    chosen = [(one, other) for one in WORDS for other in WORDS if one != other]
    rows = [{"prompt": f"{one} {other}", "chosen": f"{other}!", "rejected": other} for one, other in chosen]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def start(base: Path, pairs: Path, out: Path, **wishes: Any) -> Tuned:
    overrides = SETTINGS | wishes.pop("overrides", {})
    return tune(base, [pairs], task="prefer", out=out, overrides=overrides, **wishes)


@pytest.mark.parametrize("length_normalised", [False, True])
def test_the_objective_by_hand(talker: Path, pairs: Path, length_normalised: bool) -> None:
    base = open_base(talker)
    net = base.network()
    some = read_preferences([pairs]).items[:3]
    rows = encode_pairs(some, base.template, base.tokenizer, context_length=150, base_length=150).rows
    reference = np.random.default_rng(0).normal(size=(3, 2)) - 5
    batch = PairBatches(rows, reference).batch(np.arange(3))
    found = DirectPreference(0.3, length_normalised=length_normalised)(net, batch)
    expected = torch.zeros(())
    won = 0
    for number, pair in enumerate(some):
        gains = []
        for side, answer in enumerate((pair.chosen, pair.rejected)):
            rendered = base.template.render_answer(pair.prompt, answer, base.tokenizer)
            scores = net(torch.tensor([rendered.ids])).log_softmax(-1)[0]
            said = [place for place, one in enumerate(rendered.assistant) if one]
            total = torch.stack([scores[place - 1, rendered.ids[place]] for place in said]).sum()
            apart = total - float(reference[number, side])
            gains.append(apart / len(said) if length_normalised else apart)
        margin = 0.3 * (gains[0] - gains[1])
        won += int(margin > 0)
        expected = expected - F.logsigmoid(margin)
    assert found.total.item() == pytest.approx(expected.item(), rel=1e-4)
    assert int(found.count) == 3
    assert int(found.metrics["reward_accuracy"]) == won
    assert bool((batch["labels"] != IGNORED).any(1).all())


def test_two_answers_may_be_longer_together_than_the_context(talker: Path) -> None:
    base = open_base(talker)
    pair = Preference((Message("user", "sun moon"),), "sun " * 22, "moon " * 18)
    rows = encode_pairs(
        [pair], base.template, base.tokenizer, context_length=(size := base.context_length), base_length=size
    ).rows
    assert rows.examples.lengths.sum() > base.context_length
    batch = PairBatches(rows, np.zeros((1, 2))).batch(np.arange(1))
    assert torch.isfinite(DirectPreference()(base.network(), batch).total)


@pytest.mark.parametrize("form", ["sums", "means"])
def test_a_model_changes_its_mind(talker: Path, pairs: Path, tmp_path: Path, form: str) -> None:
    summary = start(
        talker, pairs, tmp_path / "run", steps=40, overrides={"preference.length_normalised": form == "means"}
    )
    assert summary.ended == "finished"
    for name in (LIKELIER, LIKELIER_BY_TOKEN) if form == "sums" else (LIKELIER_BY_TOKEN,):
        assert (summary.record(name).value or 0) > 0.8
        difference = summary.record(gain(name)).interval
        assert difference is not None
        assert difference.low > 0
    assert (summary.record(before(LIKELIER)).value or 0) < 0.3
    assert (summary.record("reward_accuracy").value or 0) > 0.8
    assert (summary.record("reward_margin").value or 0) > 0
    assert (summary.record("kl").value or 0) > 0
    assert "dpo" in (tmp_path / "run" / "README.md").read_text()
    assert "rung chat" in "\n".join(summary.lines())


class Impatient(SilentDisplay):
    """Presses Ctrl-C at step 3."""

    def update(self, report: StepReport) -> None:
        if report.step == 3:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("method", [TuningMethod(), LORA], ids=["full", "lora"])
def test_an_interrupted_run_goes_on_bit_for_bit(
    method: TuningMethod, talker: Path, pairs: Path, tmp_path: Path
) -> None:
    start(talker, pairs, tmp_path / "whole", steps=10, method=method)
    stopped = start(talker, pairs, tmp_path / "parts", steps=10, method=method, display=Impatient())
    assert (stopped.ended, stopped.records) == ("interrupted", ())
    kept = (tmp_path / "parts" / REFERENCE).read_bytes()
    (tmp_path / "parts" / REFERENCE).write_bytes(kept[:40])  # damaged: it is computed again
    assert resume(tmp_path / "parts").ended == "finished"
    assert (tmp_path / "parts" / REFERENCE).read_bytes() == kept
    name = "model.safetensors" if method.kind == "full" else "adapter_model.safetensors"
    whole, parts = (load_file(tmp_path / run / name) for run in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    with pytest.raises(RunFolderError, match="finished"):
        resume(tmp_path / "parts")


def test_refusals(talker: Path, pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no pairs to tune on"):
        tune(talker, [], task="prefer", out=tmp_path / "run")
    with pytest.raises(UsageError, match="no new head"):
        plan(talker, [pairs], task="prefer", method=TuningMethod("frozen"))
    with pytest.raises(DataError, match="no pair fits the context"):
        plan(talker, [pairs], task="prefer", overrides=SETTINGS | {"training.context_length": 16})


def test_the_plan(talker: Path, pairs: Path) -> None:
    made = plan(talker, [pairs], task="prefer", epochs=2, overrides=SETTINGS)
    assert made.recipe.training.steps == -(-2 * made.facts()["train_pairs"] // 8)
    assert "beta 2 on means over tokens" in " ".join(made.lines())
    assert (plan(talker, [pairs], task="prefer", minutes=0.5, overrides=SETTINGS).recipe.training.steps or 0) >= 1
