"""BERT on the command line: trained, asked, measured, and refused."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rung.cli.main import app


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of a few steps."""
    folder = tmp_path_factory.mktemp("masked-commands")
    draw = random.Random(0)  # noqa: S311 - no secret
    words = ["".join(draw.choices("abcdefgh", k=4)) for _ in range(30)]
    text = folder / "text.txt"
    text.write_text("\n\n".join(" ".join(draw.choices(words, k=40)) for _ in range(150)), encoding="utf-8")
    sizes = {"net.hidden_size": 32, "net.num_hidden_layers": 1, "net.max_position_embeddings": 32}
    settings = [word for name, size in sizes.items() for word in ("--set", f"{name}={size}")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNG_CACHE", str(folder / "cache"))
        arguments = [
            "train",
            str(text),
            "--net",
            "bert",
            "--steps",
            "4",
            "--out",
            str(folder / "run"),
            "--threads",
            "1",
        ]
        result = CliRunner().invoke(app, [*arguments, *settings, "--json"])
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout.splitlines()[-1])
    assert summary["ended"] == "finished"
    assert {"masked_accuracy", "pseudo_bits_per_byte"} <= {record["name"] for record in summary["records"]}
    return folder / "run"


def lines(*arguments: str) -> list[str]:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def test_gaps_are_filled(run: Path) -> None:
    shown = lines("predict", str(run), "abcd [MASK] efgh [MASK]", "--best", "3")
    assert "[MASK]" not in shown[0]
    assert shown[1] == "gap 1:"
    assert shown[5] == "gap 2:"
    assert len(shown) == 9
    found = json.loads(lines("predict", str(run), "abcd [MASK]", "--json")[-1])
    (prediction,) = found["predictions"]
    assert len(prediction["masks"][0]) == 5
    assert prediction["filled"].startswith("abcd")


def test_a_text_is_measured(run: Path) -> None:
    text = run.parent / "small.txt"
    text.write_text("abcd efgh abcd", encoding="utf-8")
    found = json.loads(lines("eval", str(run), str(text), "--json")[-1])
    assert found["pseudo_bits_per_byte"]["unit"] == "pseudo-bits per byte"
    assert "not to be compared" in " ".join(" ".join(lines("eval", str(run), str(text))).split())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["abcd"], 1, "no [MASK]"),
        ([], 2, "no text to fill"),
        (["abcd [MASK]", "--beams", "2"], 2, "--beams"),
        (["[MASK] " * 40], 1, "reads 32"),
    ],
)
def test_what_cannot_be_filled_is_refused(arguments: list[str], code: int, message: str, run: Path) -> None:
    result = CliRunner().invoke(app, ["predict", str(run), *arguments], catch_exceptions=False)
    assert result.exit_code == code
    assert message in result.output
