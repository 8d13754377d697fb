"""The loop in one process: exact sums, refused steps, endings, retention, what it writes and shows."""

from __future__ import annotations

import functools
import json
import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from training_toy import (
    CONTEXT,
    ToyBatches,
    ToyNet,
    Watching,
    toy_net,
    toy_objective,
    toy_run,
    toy_settings,
    weights,
)

from rung.errors import RecipeError, RunFolderError, TrainingError
from rung.objectives.loss import Loss
from rung.training.checkpoint import checkpoints, extended, latest_good, load_checkpoint, pre_decay
from rung.training.contracts import LoopSettings, Validation
from rung.training.distributed import alone
from rung.training.gradients import BatchGradient
from rung.training.meter import Figures
from rung.training.optimizers import build_optimizer
from rung.training.schedule import Schedule
from rung.training.validation import mean_loss


def log_lines(run_folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]


def names(run_folder: Path) -> list[int]:
    return list(checkpoints(run_folder))


def gradient_of(micro_batch_size: int) -> tuple[ToyNet, Any]:
    net = toy_net(dropout=0.0)
    settings = toy_settings(batch_size=32, micro_batch_size=micro_batch_size, gradient_clip=None)
    optimizer = build_optimizer(net, name="adamw", learning_rate=0.01)
    gradient = BatchGradient(
        net=net, objective=toy_objective, batches=ToyBatches(), optimizer=optimizer, settings=settings, world=alone()
    )
    return net, gradient.compute(64, lambda: 0)


def test_thirty_two_micro_batches_are_one_batch_of_thirty_two() -> None:
    """Samples have 12 or 8 targets: a mean of means would differ in the second digit."""
    whole, one = gradient_of(32)
    parts, many = gradient_of(1)
    assert one.count == many.count == 16 * CONTEXT + 16 * (CONTEXT - 4)
    assert many.loss == pytest.approx(one.loss, rel=1e-6)
    assert many.metrics == pytest.approx(one.metrics, rel=1e-9)
    for first, second in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.linalg.norm(first.grad - second.grad) <= 1e-6 * torch.linalg.norm(first.grad)


def test_the_gradient_is_that_of_torch_s_own_mean() -> None:
    net, sums = gradient_of(8)
    plain = toy_net(dropout=0.0)
    batch = ToyBatches().batch(np.arange(64, 96))
    loss = nn.functional.cross_entropy(plain(batch["input_ids"]).flatten(0, 1), batch["labels"].flatten())
    loss.backward()
    assert sums.loss == pytest.approx(loss.item(), rel=1e-6)
    norm = nn.utils.clip_grad_norm_(plain.parameters(), math.inf)
    assert sums.norm == pytest.approx(norm.item(), rel=1e-6)
    for ours, theirs in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-7)


def test_dropout_does_not_depend_on_how_a_batch_is_cut_over_ranks() -> None:
    """The draws of a micro-batch are keyed by its first sample, so two ranks draw what one would."""
    settings = toy_settings(batch_size=32, micro_batch_size=8)
    assert [piece for rank in range(2) for piece in settings.micro_batches(rank, 2)] == settings.micro_batches(0, 1)


class Poisoned:
    """An objective whose loss is multiplied by `factor` from step `since` on, for `steps` steps of 2 micro-batches."""

    def __init__(self, factor: float, since: int, steps: int) -> None:
        self.factor, self.calls = factor, 0
        self.bad = range(2 * since, 2 * (since + steps))

    def __call__(self, net: Any, batch: Any) -> Loss:
        loss = toy_objective(net, batch)
        self.calls += 1
        return Loss(loss.total * (self.factor if self.calls - 1 in self.bad else 1.0), loss.count, loss.metrics)


def test_a_step_without_a_finite_loss_leaves_weights_and_optimiser_alone(tmp_path: Path) -> None:
    result = toy_run(tmp_path, toy_settings(6, checkpoint_every=2), objective=Poisoned(math.nan, since=4, steps=2))
    assert weights(result.checkpoint) == weights(tmp_path / "checkpoints/step-00000004")
    assert result.skipped == {"not finite": 2}
    refused = [line for line in log_lines(tmp_path) if "refused" in line]
    assert [(line["step"], line["samples"]) for line in refused] == [(5, [32, 39]), (6, [40, 47])]


def test_five_steps_without_a_finite_loss_stop_training_with_a_report(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="5 steps in a row") as caught:
        toy_run(tmp_path, toy_settings(40, checkpoint_every=4), objective=Poisoned(math.inf, since=9, steps=31))
    assert names(tmp_path) == [4, 8]
    load_checkpoint(tmp_path / "checkpoints/step-00000008")
    report = json.loads((tmp_path / "failure.json").read_text())
    assert report["step"] == 14
    assert report["last_good_checkpoint"] == "checkpoints/step-00000008"
    assert [entry["samples"][0] for entry in report["refused"]] == [72, 80, 88, 96, 104]
    assert len(report["losses"]) == len(report["gradient_norms"]) == 9
    assert "failure.json" in str(caught.value)


def test_weights_that_are_not_finite_are_never_written(tmp_path: Path) -> None:
    net = toy_net()

    def break_weights(_net: Any, batch: Any) -> Loss:
        if int(batch["input_ids"][0, 0]) >= 0 and broken.calls == 8:
            with torch.no_grad():
                net.norm.bias[0] = math.nan
        broken.calls += 1
        loss = toy_objective(toy_net(), batch)
        return Loss(loss.total + 0.0 * net.lm_head.weight.sum(), loss.count, loss.metrics)

    broken = Poisoned(1.0, 0, 0)
    with pytest.raises(TrainingError, match=r"weights of norm\.bias are not finite"):
        toy_run(tmp_path, toy_settings(12), net=net, objective=break_weights)
    assert names(tmp_path) == [3]
    assert (tmp_path / "failure.json").is_file()


def test_what_is_counted_has_its_name(tmp_path: Path) -> None:
    watching = Watching()
    toy_run(tmp_path, toy_settings(5), display=watching, figures=Figures(unit="texts"))
    assert {report.unit for report in watching.reports} == {"texts"}


def test_a_spike_is_skipped_and_counted(tmp_path: Path) -> None:
    settings = toy_settings(140, checkpoint_every=None, log_every=20)
    result = toy_run(tmp_path, settings, objective=Poisoned(5.0, since=133, steps=1))
    assert result.skipped == {"spike": 1}
    assert result.step == 140


def criteria(values: list[float]) -> Any:
    left = iter(values)
    return lambda: Validation(next(left), {"made_up": 1.0})


def test_a_validation_without_a_number_is_told_and_is_never_the_best(tmp_path: Path) -> None:
    shown = Watching()
    settings = toy_settings(6, validate_every=2, checkpoint_every=None, patience=5)
    result = toy_run(tmp_path, settings, validate=criteria([math.nan, 3.0, math.inf]), display=shown)
    assert (result.step, result.best_criterion) == (6, 3.0)
    validations = [line["validation"] for line in log_lines(tmp_path) if "validation" in line]
    assert validations == [{"made_up": 1.0}, {"criterion": 3.0, "made_up": 1.0}, {"made_up": 1.0}]
    told = [said for said in shown.said if "no finite number" in said]
    assert told == [f"step {step}: validation gave no finite number for criterion" for step in (2, 6)]


def test_patience_ends_training_and_the_best_checkpoint_stays(tmp_path: Path) -> None:
    settings = toy_settings(40, validate_every=2, patience=3, checkpoint_every=None, keep_last=1)
    result = toy_run(tmp_path, settings, validate=criteria([5.0, 3.0, 4.0, 3.0, 3.5]))
    assert (result.ended, result.step) == ("stopped early", 10)
    assert result.best_checkpoint == tmp_path / "checkpoints/step-00000004"
    assert result.best_criterion == 3.0
    assert names(tmp_path) == [4, 10]
    validations = [line for line in log_lines(tmp_path) if "validation" in line]
    assert [line["validation"]["criterion"] for line in validations] == [5.0, 3.0, 4.0, 3.0, 3.5]


def test_last_three_best_and_pre_decay_are_kept(tmp_path: Path) -> None:
    settings = toy_settings(24, checkpoint_every=2, validate_every=4)
    result = toy_run(tmp_path, settings, validate=criteria([2.0, 1.0, 3.0, 3.0, 3.0, 3.0]))
    assert names(tmp_path) == [8, 12, 20, 22, 24]
    assert result.best_checkpoint == tmp_path / "checkpoints/step-00000008"
    assert pre_decay(tmp_path, print).state.step == 12


def test_validation_runs_without_dropout_and_training_goes_on_with_it(tmp_path: Path) -> None:
    net, modes = toy_net(), []
    toy_run(
        tmp_path / "validated",
        toy_settings(6, validate_every=2),
        net=net,
        validate=lambda: modes.append(net.training) or Validation(1.0),  # type: ignore[func-returns-value]
    )
    assert modes == [False, False, False]
    plain = toy_run(tmp_path / "plain", toy_settings(6))
    assert weights(tmp_path / "validated/checkpoints/step-00000006") == weights(plain.checkpoint)


def test_mean_loss_is_the_loss_per_target_whatever_the_batch_size() -> None:
    net = toy_net()
    whole = mean_loss(net, toy_objective, ToyBatches(), samples=13, batch_size=13, world=alone())
    parts = mean_loss(net, toy_objective, ToyBatches(), samples=13, batch_size=4, world=alone())
    assert parts == pytest.approx(whole, rel=1e-6)
    assert whole.keys() == {"loss", "accuracy"}
    assert net.training


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_finishes_the_step_and_saves(tmp_path: Path, number: signal.Signals) -> None:
    def interrupting(net: Any, batch: Any) -> Loss:
        calls.append(1)
        if len(calls) == 9:
            signal.raise_signal(number)
        return toy_objective(net, batch)

    calls: list[int] = []
    former, watching = signal.getsignal(number), Watching()
    stopped = toy_run(tmp_path / "a", toy_settings(), objective=interrupting, display=watching)
    assert (stopped.ended, stopped.step) == ("interrupted", 5)
    assert "rung train --resume" in watching.said[-1]
    assert signal.getsignal(number) is former
    went_on = toy_run(tmp_path / "a", toy_settings(), resume=latest_good(tmp_path / "a", watching.say))
    straight = toy_run(tmp_path / "b", toy_settings())
    assert weights(went_on.checkpoint) == weights(straight.checkpoint)


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    def impatient(_net: Any, _batch: Any) -> Loss:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("not reached")

    with pytest.raises(KeyboardInterrupt):
        toy_run(tmp_path, toy_settings(), objective=impatient)
    assert names(tmp_path) == []


def test_a_run_is_extended_from_before_its_decay(tmp_path: Path) -> None:
    toy_run(tmp_path / "short", toy_settings(12))
    longer = extended(pre_decay(tmp_path / "short", print), 30)
    assert longer.state.step == 6
    watching = Watching()
    result = toy_run(tmp_path / "short", toy_settings(12), resume=longer, display=watching)
    assert (result.step, result.schedule.decay_start) == (30, 15)
    assert any("step 9 is dropped" in message for message in watching.said)
    assert names(tmp_path / "short") == [15, 24, 27, 30]  # before the new decay, and the last three
    straight = toy_run(
        tmp_path / "long",
        toy_settings(schedule=Schedule.warmup_flat_decay(30, warmup=2, decay_fraction=0.5, final=0.1)),
    )
    assert weights(result.checkpoint) == weights(straight.checkpoint)
    assert [line["step"] for line in log_lines(tmp_path / "short")] == list(range(1, 31))


def test_a_run_cannot_be_extended_from_within_its_decay_or_to_less_than_it_has(tmp_path: Path) -> None:
    result = toy_run(tmp_path, toy_settings(12))
    with pytest.raises(TrainingError, match="falling already"):
        extended(load_checkpoint(result.checkpoint), 30)
    with pytest.raises(TrainingError, match="no extension"):
        extended(pre_decay(tmp_path, print), 6)


def test_reports_carry_what_people_want_to_see(tmp_path: Path) -> None:
    watching = Watching()
    figures = Figures(flops_per_target=1e3, peak_flops=1e9, bytes_per_target=2.0)
    toy_run(tmp_path, toy_settings(4), display=watching, figures=figures)
    last = watching.reports[-1]
    assert (last.step, last.steps, last.targets, last.verdict, last.skipped) == (4, 4, 4 * 80, "fine", 0)
    assert last.bits_per_byte == pytest.approx(last.loss / math.log(2) / 2)
    assert last.peak_share == pytest.approx(last.targets_per_second * 1e3 / 1e9)
    assert last.seconds_left == 0
    assert last.memory > 2**20


def test_log_lines_are_means_over_all_steps_since_the_last(tmp_path: Path) -> None:
    watching = Watching()
    toy_run(tmp_path, toy_settings(6, log_every=3), display=watching)
    lines = log_lines(tmp_path)
    assert [line["step"] for line in lines] == [3, 6]
    assert lines[1]["loss"] == pytest.approx(np.mean([report.loss for report in watching.reports[3:]]))


def test_the_compiled_loop_trains_alike_and_neither_validation_nor_vital_signs_compile_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    net = toy_net(dropout=0.0)

    def validate() -> Validation:
        return Validation(mean_loss(net, toy_objective, ToyBatches(), samples=5, batch_size=4, world=alone())["loss"])

    with torch._dynamo.config.patch(error_on_recompile=True):
        settings = toy_settings(6, compile=True, validate_every=2, vital_signs_every=1)
        compiled = toy_run(tmp_path / "compiled", settings, net=net, validate=validate)
    eager = toy_run(tmp_path / "eager", toy_settings(6), dropout=0.0)
    assert weights(compiled.checkpoint) == weights(eager.checkpoint)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # inductor's own imports
def test_the_loop_compiled_by_inductor_trains_alike(tmp_path: Path) -> None:
    compiled = toy_run(tmp_path / "compiled", toy_settings(6, compile=True), dropout=0.0)
    eager = toy_run(tmp_path / "eager", toy_settings(6), dropout=0.0)
    first, second = (
        log_lines(run)[-1]["loss"] for run in (compiled.checkpoint.parents[1], eager.checkpoint.parents[1])
    )
    assert first == pytest.approx(second, rel=1e-4)


def test_a_net_that_cannot_be_compiled_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(*_: Any) -> Any:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=no_compiler))
    with pytest.raises(TrainingError, match="cannot be compiled here") as caught:
        toy_run(tmp_path, toy_settings(3, compile=True))
    assert "compile = false" in str(caught.value)


def test_bf16_trains_close_to_fp32_and_keeps_float32_weights(tmp_path: Path) -> None:
    net = toy_net()
    toy_run(tmp_path / "bf16", toy_settings(6, precision="bf16"), net=net)
    toy_run(tmp_path / "fp32", toy_settings(6))
    first, second = (log_lines(tmp_path / name)[-1]["loss"] for name in ("bf16", "fp32"))
    assert first != second
    assert first == pytest.approx(second, rel=0.02)
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}


def test_a_full_gpu_names_the_knob(tmp_path: Path) -> None:
    def too_large(_net: Any, _batch: Any) -> Loss:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(TrainingError, match="does not hold 4 samples") as caught:
        toy_run(tmp_path, toy_settings(3), objective=too_large)
    assert "micro_batch_size" in str(caught.value)


def test_labels_that_are_all_masked_stop_training_and_are_named(tmp_path: Path) -> None:
    class Masked(ToyBatches):
        def batch(self, sample_numbers: Any) -> Any:
            batch = super().batch(sample_numbers)
            return {**batch, "labels": torch.full_like(batch["labels"], -100)}

    with pytest.raises(TrainingError, match="no targets") as caught:
        toy_run(tmp_path, toy_settings(12), batches=Masked())
    assert "check the labels" in str(caught.value)


def test_a_second_run_into_the_same_folder_is_refused(tmp_path: Path) -> None:
    toy_run(tmp_path, toy_settings(3))
    with pytest.raises(RunFolderError, match="checkpoints already"):
        toy_run(tmp_path, toy_settings(3))


@pytest.mark.parametrize("change", [{"batch_size": 16}, {"seed": 1}])
def test_a_resume_with_other_samples_is_refused(tmp_path: Path, change: dict[str, int]) -> None:
    result = toy_run(tmp_path, toy_settings(3))
    with pytest.raises(RecipeError, match="the run was begun with"):
        toy_run(tmp_path, toy_settings(3, **change), resume=load_checkpoint(result.checkpoint))


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(RecipeError, match="do not divide"):
        toy_settings(batch_size=8, micro_batch_size=3).micro_batches(0, 1)
    with pytest.raises(RecipeError, match="shared equally by 3"):
        toy_settings(batch_size=8).micro_batches(0, 3)
    with pytest.raises(RecipeError, match="log_every must be at least 1"):
        toy_settings(log_every=0)
    with pytest.raises(RecipeError, match="patience"):
        LoopSettings(toy_settings().schedule, batch_size=8, micro_batch_size=8, patience=2)
