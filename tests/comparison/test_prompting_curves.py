"""`rung prompt` from files to its report, with a tiny random decoder: by scoring, by generation, and as a chat."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from rung.cli.main import app
from rung.data.tokenizer import train_tokenizer
from rung.errors import UsageError
from rung.nets.decoder import CausalLM
from rung.nets.decoder_config import DecoderConfig
from rung.nets.pretrained import save_net
from rung.tasks.prompting.endpoint import Failed
from rung.tasks.prompting.judging import LabelScores
from rung.tasks.prompting.local_model import LocalModel
from rung.tasks.prompting.templates import Prompt

ASKED = ["--target", "label", "--shots", "0,2", "--draws", "2", "--templates", "2", "--limit", "8"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer(iter([]), kind="byte", vocab_size=257)
    config = DecoderConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
    )
    save_net(CausalLM(config, generator=torch.Generator().manual_seed(0)), folder)
    tokenizer.save(folder)
    (folder / "chat_template.jinja").write_text("{% for message in messages %}[{{ message.content }}]{% endfor %}")
    return folder


@pytest.fixture
def table(tmp_path: Path) -> Path:
    kinds = ("a prize <b>now</b>", "lunch today")
    rows = [f"{kinds[n % 2]} number {n} of {n * 7919 % 10007},{'spam' if n % 2 == 0 else 'ham'}" for n in range(80)]
    path = tmp_path / "mail.csv"
    path.write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("more", [[], ["--by", "generation"], ["--chat", "--precision", "bf16"]])
def test_the_whole_way(model: Path, table: Path, tmp_path: Path, more: list[str]) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["prompt", str(model), str(table), *ASKED, "--out", str(out), "--json", *more])
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout.splitlines()[-1])
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["points"] == shown["points"]
    scorings = {"parsed"} if "generation" in more else {"sum", "mean", "pmi"}
    assert {point["scoring"] for point in report["points"]} == scorings
    assert {point["shots"] for point in report["points"]} == {0, 2}
    assert report["questions"] == (2 + 2 * 2) * 8
    assert report["model"]["by"] == ("generation" if "generation" in more else "scoring")
    tokens = {point["shots"]: point["prompt_tokens"] for point in report["points"]}
    assert tokens[2] > tokens[0] > 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "<script" not in page
    assert not re.search(r'(src|href)="https?:', page)


def test_the_table_for_people_says_what_it_is_against(model: Path, table: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["prompt", str(model), str(table), *ASKED, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "pmi, 2 examples" in result.stdout
    assert "Guessing evenly is right 50.0%" in result.stdout
    assert "report.html" in result.stdout


def test_what_was_answered_before_ctrl_c_is_not_asked_again(
    model: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNG_CACHE", str(tmp_path / "cache"))
    real, calls, left = LocalModel.label_logprobs, [0], [4]

    def counted(self: LocalModel, prompt: Prompt, texts: Sequence[str]) -> list[LabelScores | Failed]:
        if calls[0] == left[0]:
            raise KeyboardInterrupt
        calls[0] += 1
        return real(self, prompt, texts)

    monkeypatch.setattr(LocalModel, "label_logprobs", counted)

    def asked(out: str, *more: str) -> Result:
        return CliRunner().invoke(app, ["prompt", str(model), str(table), *ASKED, "--out", str(tmp_path / out), *more])

    stopped = asked("out")
    assert stopped.exit_code == 130
    assert "answers so far are kept. Go on with: rung" in stopped.stderr
    assert not (tmp_path / "out").exists()
    left[0] = 1000
    assert asked("out").exit_code == 0
    assert calls[0] == 6, "each of the six prompts once"
    monkeypatch.setenv("RUNG_CACHE", str(tmp_path / "other"))
    assert asked("whole").exit_code == 0
    resumed, whole = (json.loads((tmp_path / out / "report.json").read_text()) for out in ("out", "whole"))
    assert resumed["settings"] == whole["settings"]
    assert resumed["points"] == whole["points"]
    assert asked("chat", "--chat").exit_code == 0
    assert calls[0] == 18, "the same weights asked in another way are asked anew"


def test_nothing_is_written_over(model: Path, table: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine", encoding="utf-8")
    result = CliRunner().invoke(app, ["prompt", str(model), str(table), *ASKED, "--out", str(tmp_path / "out")])
    assert result.exit_code == UsageError.exit_code
    assert "not empty" in result.output
