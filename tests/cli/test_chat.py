"""`rung chat` as a person meets it: at a terminal, from a pipe, from a script."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch
from typer.testing import CliRunner, Result

from rung.cli.console import results
from rung.cli.main import app
from rung.cli.terminal import write
from rung.data.chat_template import CHATML, CHATML_TOKENS
from rung.data.special_tokens import with_special_tokens
from rung.data.tokenizer import train_tokenizer
from rung.nets.decoder import CausalLM
from rung.nets.decoder_config import DecoderConfig
from rung.nets.pretrained import save_net

_PATIENCE = 120.0  # seconds, for a machine that is busy
_FAST = "--max-tokens", "8", "--temperature", "1"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of noise that can be talked with."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = with_special_tokens(train_tokenizer(["x"], kind="byte", vocab_size=257), CHATML_TOKENS)
    config = DecoderConfig(
        vocab_size=272,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=4096,
    )
    save_net(CausalLM(config, generator=torch.Generator().manual_seed(0)), folder)
    tokenizer.save(folder)
    (folder / "chat_template.jinja").write_text(CHATML)
    return folder


def run(*arguments: str | Path, given: str = "") -> Result:
    return CliRunner().invoke(app, ["chat", *map(str, arguments)], input=given)


def test_one_message_as_json(model: Path) -> None:
    done = run(model, "--message", "hello", "--system", "be", "--json", *_FAST)
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["messages"][:2] == [{"role": "system", "content": "be"}, {"role": "user", "content": "hello"}]
    assert told["finish_reason"] in ("stop", "length")
    assert 1 <= told["tokens"] <= 8
    assert told["dropped_messages"] == 0


def test_lines_from_a_pipe_are_messages_and_commands(model: Path, tmp_path: Path) -> None:
    lines = ["hello", "/tokens", "/nothing", "/save", f"/save {tmp_path / 'talk.jsonl'}", "/regenerate", "/exit", "no"]
    done = run(model, *_FAST, given="\n".join(lines))
    assert done.exit_code == 0, done.stderr
    assert "of 4,096 tokens of the context are used" in done.stderr
    assert "there is no /nothing" in done.stderr
    assert "/save needs the name of a file" in done.stderr
    saved = json.loads((tmp_path / "talk.jsonl").read_text())["messages"]
    assert [one["role"] for one in saved] == ["user", "assistant"]


def test_lines_that_are_no_text_and_words_too_many_are_told(model: Path) -> None:
    done = CliRunner().invoke(app, ["chat", str(model), *_FAST], input=b"a\xffb\n/reset now\n/exit now\n/nothing\n")
    assert done.exit_code == 0, done.stderr
    assert "this line is not valid UTF-8" in done.stderr
    assert "/reset takes nothing behind it" in done.stderr
    assert "/nothing" not in done.stderr
    assert not done.stdout


def test_a_terminal_gets_no_commands() -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    text = "a\x1b]0;title\x07\r\x9b1m\x7f\tb\n\u00e9"
    screen, file = Screen(), io.StringIO()
    write(text, screen)
    write(text, file)
    assert screen.getvalue() == "a\u241b]0;title\u2407\u240d\ufffd1m\u2421\tb\n\u00e9"
    assert file.getvalue() == text


def test_results_command_no_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text = "an answer \x1b]0;title\x07 of a model"
    results().print(text, markup=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    results().print(text, markup=False)
    to_pipe, to_terminal = capsys.readouterr().out.splitlines()
    assert "\x1b]0;" in to_pipe
    assert "\x1b]0;" not in to_terminal
    assert "\u241b]0;title\u2407 of a model" in to_terminal


def test_what_cannot_be_is_said(model: Path, tmp_path: Path) -> None:
    assert run(model, "--json").exit_code == 2
    empty = tmp_path / "empty"
    empty.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (empty / name).write_bytes((model / name).read_bytes())
    done = run(empty, "--message", "hi", "--json")
    assert done.exit_code == 1
    assert "no chat template" in json.loads(done.stdout.splitlines()[-1])["error"]["problem"]


class Terminal:
    """A real (pseudo-)terminal with `rung chat` in it."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process, self._master, self.seen = process, master, ""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def interrupt(self) -> None:
        """Ctrl-C when the prompt waits: Python tells one between the prompt and its `select` at the next key only."""
        process = psutil.Process(self.process.pid)
        deadline = time.monotonic() + _PATIENCE
        while process.status() != psutil.STATUS_SLEEPING:
            assert time.monotonic() < deadline, "the prompt never waits"
            time.sleep(0.01)
        self.process.send_signal(signal.SIGINT)

    def wait_for_anything(self) -> None:
        """Until something is shown."""
        assert self.seen or select.select([self._master], [], [], _PATIENCE)[0]

    def wait_for(self, text: str) -> str:
        """What was shown up to and with `text`, which is then forgotten."""
        deadline = time.monotonic() + _PATIENCE
        while text not in self.seen:
            assert time.monotonic() < deadline, f"{text!r} did not come; there is {self.seen!r}"
            if select.select([self._master], [], [], 1.0)[0]:
                self.seen += os.read(self._master, 65536).decode(errors="replace")
        before, _, self.seen = self.seen.partition(text)
        return before


@contextmanager
def terminal(*arguments: str | Path) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "rung", "chat", *map(str, arguments)]
    environment = {**os.environ, "TERM": "dumb", "NO_COLOR": "1"}
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True, close_fds=True
    )
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_a_terminal(model: Path) -> None:
    with terminal(model, "--max-tokens", "200", "--temperature", "1") as screen:
        screen.wait_for("context of 4,096 tokens")
        screen.wait_for("> ")
        screen.type("hello\n")
        written = screen.wait_for("tokens/s)")  # noise: some of it are control characters
        plain = re.sub(r"\x1b\[[02]m", "", written)  # how the note behind it is set off
        assert not re.findall(r"[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f-\x9f]", plain)
        assert re.search(r"[\u2400-\u2421]", plain)
        screen.wait_for("> ")
        screen.type("/help\n")
        assert "/regenerate" in screen.wait_for("> ")
        screen.type("/system Be kind.\n")
        screen.wait_for("the system message is set")
        screen.wait_for("> ")
        screen.interrupt()
        screen.wait_for("(Ctrl-D or /exit leaves)")
        screen.wait_for("> ")
        screen.type("\x04")
        assert screen.process.wait(timeout=_PATIENCE) == 0


def test_ctrl_c_stops_an_answer_and_not_the_chat(model: Path) -> None:
    with terminal(model, "--max-tokens", "3500", "--temperature", "1") as screen:
        screen.wait_for("> ")
        screen.type("hello\n")
        screen.wait_for("hello")
        screen.wait_for("\n")
        screen.wait_for_anything()
        screen.process.send_signal(signal.SIGINT)
        screen.wait_for("(stopped")
        screen.wait_for("> ")
        screen.type("/tokens\n")
        screen.wait_for("tokens of the context are used")
        screen.wait_for("> ")
        screen.type("/exit\n")
        assert screen.process.wait(timeout=_PATIENCE) == 0
