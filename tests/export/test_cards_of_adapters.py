"""Cards say what a folder is: an adapter and of which base, a merged model, weights of a run that was broken off."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from rung.export.exporting import export_model
from rung.nets.adapters import ADAPTER_CONFIG
from rung.progress import SILENT
from rung.tasks.card_parts import hub_name
from rung.tasks.tuning.method import TuningMethod
from rung.tasks.tuning.summary import Tuned
from rung.tasks.tuning.tune import tune
from rung.training.meter import SilentDisplay, StepReport

LORA = TuningMethod("lora")
ADAPTER = "This folder is an adapter: it needs its base."
SETTINGS: dict[str, Any] = {
    "training.batch_size": 2,
    "training.context_length": 24,
    "training.learning_rate": 0.01,
    "training.precision": "fp32",
    "training.threads": 1,
    "text.valid_fraction": 0.2,
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNG_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    draw = random.Random(3)  # noqa: S311 - no secret
    rows = ("".join(draw.choices("abcdefgh  ", k=160)) for _ in range(30))
    path = tmp_path / "text.jsonl"
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows), encoding="utf-8")
    return path


class Impatient(SilentDisplay):
    """Presses Ctrl-C at the third step."""

    def update(self, report: StepReport) -> None:
        if report.step == 3:
            signal.raise_signal(signal.SIGINT)


def tuned(base: Path, text: Path, out: Path, method: TuningMethod, **more: Any) -> Tuned[Any]:
    return tune(base, [text], task="text", out=out, method=method, steps=5, overrides=SETTINGS, progress=SILENT, **more)


def card_of(folder: Path) -> tuple[str, str]:
    _, head, body = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return head, body


def test_an_adapter_on_rounded_weights_says_so(make_model: Any, text: Path, tmp_path: Path) -> None:
    export_model(make_model("qwen3"), tmp_path / "gguf", to="gguf", dtype="q8_0", verify=False)
    run = tmp_path / "run"
    done = tuned(tmp_path / "gguf" / "model.gguf", text, run, LORA)
    head, body = card_of(run)
    assert "library_name: peft" in head
    assert "base_model" not in head  # nobody knows what the hub calls it
    for told in (body, "\n".join(done.lines()), done.to_json()["base_note"]):
        assert "rounded weights of a GGUF file (model)" in told
        assert f"rung export {run} --to hf" in told
    assert ADAPTER in body

    export_model(run, tmp_path / "out", to="hf", verify=False)
    _, body = card_of(tmp_path / "out")
    assert ADAPTER not in body
    assert "rounded weights" not in body
    assert "The adapter is merged into its base: this folder is the whole model.\n\n## Use" in body


def test_weights_that_are_not_rounded_need_no_word(make_model: Any, text: Path, tmp_path: Path) -> None:
    export_model(make_model("qwen3"), tmp_path / "gguf", to="gguf", dtype="f32", verify=False)
    done = tuned(tmp_path / "gguf" / "model.gguf", text, tmp_path / "run", LORA)
    assert done.base_note == ""
    assert "rounded" not in card_of(tmp_path / "run")[1]


@pytest.mark.parametrize("method", [TuningMethod(), LORA], ids=["full", "lora"])
def test_the_head_names_the_base_as_the_hub_does(
    method: TuningMethod, make_model: Any, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    make_model("qwen3").rename(tmp_path / "models" / "smollm2")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "smollm2" / "base.json").write_text('{"name": "smollm2", "origin": "smollm2"}')
    tuned(Path("smollm2"), text, tmp_path / "run", method)
    export_model(tmp_path / "run", tmp_path / "out", to="hf", verify=False)
    for folder, adapter in ((tmp_path / "run", method.kind == "lora"), (tmp_path / "out", False)):
        head, body = card_of(folder)
        assert "base_model: HuggingFaceTB/SmolLM2-135M-Instruct\n" in head
        assert f"library_name: {'peft' if adapter else 'transformers'}\n" in head
        assert (ADAPTER in body) == adapter
        assert (folder / ADAPTER_CONFIG).is_file() == adapter


def test_a_run_that_was_broken_off_is_not_sold_as_finished(make_model: Any, text: Path, tmp_path: Path) -> None:
    stopped = tuned(make_model("qwen3"), text, tmp_path / "run", LORA, display=Impatient())
    assert stopped.ended == "interrupted"
    report = export_model(tmp_path / "run", tmp_path / "out", to="hf", verify=False)
    for told in ("\n".join(report.lines()), card_of(tmp_path / "out")[1]):
        assert "THE RUN IS NOT FINISHED (interrupted): these are the weights of its newest checkpoint" in told
    assert "## Parents\n\n- name: `tiny-qwen3`" in card_of(tmp_path / "out")[1]


def test_what_the_hub_calls_a_base() -> None:
    assert hub_name({"name": "minilm"}) == "sentence-transformers/all-MiniLM-L6-v2"
    assert hub_name({"name": "org/model"}) == "org/model"
    assert hub_name({"name": "my-run"}) is None
    assert hub_name({}) is None
