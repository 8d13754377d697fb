"""Commands take a model by whatever a user has of it: a GGUF file, its folder, the name of a base."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from rung.cli.main import app
from rung.data.chat_template import CHATML, CHATML_TOKENS
from rung.data.special_tokens import with_special_tokens
from rung.data.tokenizer import train_tokenizer
from rung.export.exporting import export_model
from rung.nets.decoder import CausalLM
from rung.nets.decoder_config import DecoderConfig
from rung.nets.pretrained import save_net
from rung.tasks.bases import KNOWN_BASES


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A GGUF export of a model that can be talked with, whose card says how; commands run beside it."""
    monkeypatch.chdir(tmp_path)
    run = Path("mine")
    tokenizer = with_special_tokens(train_tokenizer(["x"], kind="byte", vocab_size=257), CHATML_TOKENS)
    config = DecoderConfig(
        vocab_size=272, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=256, eos_token_id=0,
    )  # fmt: skip
    save_net(CausalLM(config, generator=torch.Generator().manual_seed(0)), run)
    tokenizer.save(run)
    (run / "chat_template.jinja").write_text(CHATML)
    (run / "README.md").write_text(f"# Mine\n\n```\nrung chat {run}\n```\n")
    export_model(run, Path("mine-gguf"), to="gguf", dtype="f32", verify=False)
    return Path("mine-gguf")


def called(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_what_the_card_of_a_gguf_export_prints_can_be_run(exported: Path) -> None:
    printed = re.findall(r"^rung (chat .*)$", (exported / "README.md").read_text(), re.MULTILINE)
    assert printed == [f"chat {exported}"]
    done = called(*shlex.split(printed[0]), "--message", "hello", "--max-tokens", "4", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["tokens"] >= 1


@pytest.mark.parametrize("place", ["mine-gguf/model.gguf", "mine-gguf", "smollm2"])
def test_a_model_writes_and_is_measured_by_any_of_its_names(
    exported: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(KNOWN_BASES["smollm2"]), "installed", (exported / "model.gguf").resolve())
    texts, drawn = Path("text.txt"), ("--temperature", "0", "--max-tokens", "5", "--json")
    texts.write_text("some words to be measured\n" * 20)
    written, meant = called("generate", place, "hello", *drawn), called("generate", "mine", "hello", *drawn)
    assert written.exit_code == 0, written.stderr
    one, other = (json.loads(done.stdout)["texts"][0]["text"] for done in (written, meant))
    assert one == other
    measured, meant = called("eval", place, texts, "--json"), called("eval", "mine", texts, "--json")
    assert measured.exit_code == 0, measured.stderr
    one, other = (json.loads(done.stdout)["bits_per_byte"]["value"] for done in (measured, meant))
    assert one == pytest.approx(other, rel=1e-5)


def test_a_place_where_nothing_is_says_what_was_looked_for() -> None:
    for command in (("generate",), ("eval",), ("predict",)):
        done = called(*command, "no/where/at/all", "text")
        assert done.exit_code == 1
        assert "there is no model 'no/where/at/all'" in done.stderr
        assert "no folder and no file is called so" in done.stderr


def test_a_language_model_that_shall_label_is_sent_on(exported: Path) -> None:
    done = called("predict", exported, "a text")
    assert done.exit_code == 1
    assert "rung prompt" in done.stderr
