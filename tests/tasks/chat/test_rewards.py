"""`rung tune --task reward`: the objective by hand, a model that learns what pays, resumed bit for bit."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rung.errors import RunFolderError, UsageError
from rung.nets.lora import LoraConfig
from rung.objectives.group_relative import GroupRelative, advantages
from rung.records import Interval
from rung.tasks.chat.preparation import open_base
from rung.tasks.chat.reward_summary import BEFORE, GAIN, SOLVED
from rung.tasks.tuning.method import TuningMethod
from rung.tasks.tuning.summary import Tuned
from rung.tasks.tuning.tune import resume, tune
from rung.training.meter import SilentDisplay, StepReport

SETTINGS: dict[str, Any] = {
    "training.precision": "fp32",
    "training.threads": 1,
    "training.batch_size": 4,
    "training.learning_rate": 3e-3,
    "reward.max_tokens": 6,
    "data.test_share": 0.2,
}


@pytest.fixture(scope="module")
def talker(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that answers with digits, rarely the right one."""
    path = tmp_path_factory.mktemp("digits") / "digits.jsonl"
    rows = [{"prompt": f"say {n % 40} {n}", "completion": str(n % 10)} for n in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"training.learning_rate": 0.01, "training.context_length": 60, "measuring.prompts": 0}
    shared = {name: SETTINGS[name] for name in ("training.precision", "training.threads", "data.test_share")}
    out = tmp_path_factory.mktemp("talker") / "run"
    return tune(
        base, [path], task="chat", out=out, steps=50, overrides=settings | shared | {"training.batch_size": 4}
    ).run


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whatever is asked, 7 is right: what pays can be found by trying."""
    path = tmp_path_factory.mktemp("problems") / "problems.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"say {n}", "answer": 7}) + "\n" for n in range(60)))
    return path


def start(base: Path, problems: Path, out: Path, **wishes: Any) -> Tuned:
    return tune(base, [problems], task="reward", out=out, overrides=SETTINGS | wishes.pop("overrides", {}), **wishes)


def test_the_objective_by_hand(talker: Path) -> None:
    net = open_base(talker).network()
    ids = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 0]])
    labels = torch.tensor([[-100, 5, 6, -100], [-100, 9, -100, -100]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    gains = torch.tensor([0.5, -1.0])
    reference = torch.full((2, 4), -2.0)
    batch = {"input_ids": ids, "labels": labels, "mask": mask, "advantages": gains, "reference": reference}
    found = GroupRelative(max_tokens=10, beta=0.3)(net, batch)
    with torch.no_grad():
        scores = net(ids).log_softmax(-1)
    first, second, third = scores[0, 1, 5], scores[0, 2, 6], scores[1, 1, 9]
    policy = -(0.5 * (first + second) - third) / 10
    gap = -2.0 - torch.stack([first, second, third])
    assert found.total.item() == pytest.approx((policy + 0.3 * (gap**2).sum() / 2 / 10).item(), rel=1e-4)
    assert found.metrics["kl"].item() == pytest.approx((gap.exp() - gap - 1).sum().item(), rel=1e-4)
    assert int(found.count) == 2


def test_advantages_are_of_a_group() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    found = advantages(rewards, normalised=False)
    assert found.tolist() == [[0.5, -0.5, -0.5, 0.5], [0.0] * 4]
    assert advantages(rewards, normalised=True)[0, 0].item() == pytest.approx(0.5 / (rewards[0].std().item() + 1e-4))


def test_a_model_finds_what_pays(talker: Path, problems: Path, tmp_path: Path) -> None:
    summary = start(talker, problems, tmp_path / "run", steps=30)
    assert summary.ended == "finished"
    assert (summary.record(SOLVED).value or 0) > (summary.record(BEFORE).value or 0)
    gain = summary.record(GAIN)
    assert gain.interval is not None
    assert gain.interval.low > 0
    assert "grpo" in (tmp_path / "run" / "README.md").read_text()
    assert "answers/s" in summary.lines()[0]
    assert json.loads(json.dumps(summary.to_json()))["steps"] == 30
    told = "fewer than its base"
    assert told not in "\n".join(summary.lines())
    lost = gain.model_copy(update={"interval": Interval(low=-0.3, high=-0.1, method="any")})
    assert told in "\n".join(replace(summary, records=(lost,)).lines())


class Impatient(SilentDisplay):
    """Presses Ctrl-C at step 2."""

    def update(self, report: StepReport) -> None:
        if report.step == 2:
            signal.raise_signal(signal.SIGINT)


def test_an_interrupted_run_goes_on_bit_for_bit(talker: Path, problems: Path, tmp_path: Path) -> None:
    wishes: dict[str, Any] = {
        "steps": 6,
        "method": TuningMethod("lora", LoraConfig(r=4)),
        "overrides": {"reward.beta": 0.05, "reward.normalised": True},
    }
    start(talker, problems, tmp_path / "whole", **wishes)
    stopped = start(talker, problems, tmp_path / "parts", display=Impatient(), **wishes)
    assert (stopped.ended, stopped.records) == ("interrupted", ())
    assert resume(tmp_path / "parts").ended == "finished"
    name = "checkpoints/step-00000006/adapter_model.safetensors"
    whole, parts = (load_file(tmp_path / run / name) for run in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    with pytest.raises(RunFolderError, match="finished"):
        resume(tmp_path / "parts")


def test_refusals(talker: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no problems to tune on"):
        tune(talker, [], task="reward", out=tmp_path / "run")
