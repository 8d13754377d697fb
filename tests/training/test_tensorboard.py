"""Event files are read back with TensorBoard's own reader."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import pytest
from training_toy import toy_run, toy_settings

from rung.errors import UsageError
from rung.training.checkpoint import load_checkpoint
from rung.training.contracts import Validation
from rung.training.tensorboard import EventFiles


def test_what_is_logged_is_what_tensorboard_reads_also_after_a_resume(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorBoard's own imports
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        settings = toy_settings(9, tensorboard=True, validate_every=3)
        toy_run(tmp_path, settings, validate=lambda: Validation(2.5, {"bits_per_byte": 2.5}))
        resumed = load_checkpoint(tmp_path / "checkpoints/step-00000006")
        toy_run(tmp_path, settings, resume=resumed, validate=lambda: Validation(2.0, {"bits_per_byte": 2.0}))
        events = EventAccumulator(str(tmp_path / "events")).Reload()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    read = {event.step: event.value for event in events.Scalars("train/loss")}
    assert read == pytest.approx(losses, rel=1e-6)
    assert [(event.step, event.value) for event in events.Scalars("validation/bits_per_byte")] == [
        (3, 2.5),
        (6, 2.5),
        (9, 2.0),
    ]


def test_without_tensorboard_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match="not installed") as caught:
        EventFiles(tmp_path, from_step=0)
    assert "rung[tensorboard]" in str(caught.value)
