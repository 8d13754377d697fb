"""`rung chat`: talk with a model in the terminal, or ask it one thing from a script."""

from __future__ import annotations

import sys
import time
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rung.cli.generate import Precision
from rung.cli.options import Json, Threads, examples
from rung.cli.terminal import without_commands, write
from rung.cli.threads import settle_threads
from rung.errors import DataError, RungError, UsageError

if TYPE_CHECKING:
    from rung.tasks.chat.session import Asked, ChatSession
    from rung.tasks.chat.talking import ChatAnswer

_EXAMPLES = examples(
    "rung chat smollm2",
    'rung chat runs/my_chat --system "You answer in one sentence." --temperature 0.3',
    'rung chat runs/my_chat --message "What is a spoon for?" --json',
    "echo 'Name three rivers.' | rung chat runs/my_chat",
)
_HELP = """\
/regenerate    answer the last message anew
/system TEXT   say how the assistant shall be; without TEXT: show it
/save FILE     write the conversation, one line of JSON Lines
/load FILE     go on with a saved conversation
/reset         forget what was said
/tokens        how full the context is
/help          this
/exit          leave (Ctrl-D does, too); Ctrl-C stops an answer"""
_TO_READ = "  (Ctrl-C stops an answer, Ctrl-D leaves, /help tells more)"


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("chat", epilog=_EXAMPLES, short_help="Talk with a model.")(chat)


def chat(
    base: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run folder, a model folder, a .gguf file, or a base such as smollm2.",
            show_default=False,
        ),
    ],
    *,
    message: Annotated[
        str | None, typer.Option("--message", metavar="TEXT", show_default=False, help="Ask this, answer, and leave.")
    ] = None,
    system: Annotated[
        str | None,
        typer.Option("--system", metavar="TEXT", show_default=False, help="How the assistant shall be."),
    ] = None,
    load: Annotated[
        Path | None,
        typer.Option("--load", metavar="FILE", show_default=False, help="Go on with a conversation that /save wrote."),
    ] = None,
    temperature: Annotated[
        float, typer.Option("--temperature", metavar="T", help="0: always the likeliest token.")
    ] = 0.7,
    top_p: Annotated[
        float | None,
        typer.Option("--top-p", metavar="P", show_default=False, help="Draw from the likeliest tokens that make up P."),
    ] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", metavar="N", help="Tokens of an answer, at most.")] = 512,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Equal seeds give equal answers.")] = 0,
    precision: Annotated[
        Precision, typer.Option("--precision", help="int8 writes fastest, at a little loss.")
    ] = Precision.fp32,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Talk with RUN; what it says appears as it is written.

    The model needs a chat template: it was made or tuned for conversations (`rung tune BASE DATA --task chat`). When
    the context is full, whole oldest turns are left out, and you are told. From a pipe, every line is a message.
    """
    if as_json and message is None:
        raise UsageError("--json answers one message", hint='give it: --message "..."')
    settle_threads()
    import torch

    from rung.generation.options import SamplingOptions
    from rung.tasks.chat.session import ChatSession
    from rung.tasks.language_model import load as load_model

    if threads is not None:
        torch.set_num_threads(threads)
    options = SamplingOptions(temperature=temperature, top_p=top_p, max_tokens=max_tokens, seed=seed)
    model = load_model(base, precision=precision.value)
    session = ChatSession(model.talker, options)
    if load is not None:
        session.load(load)
    if system is not None:
        session.set_system(system)
    if message is None:
        _converse(session, base)
    elif as_json:
        _answer_as_json(session, message, base)
    else:
        _show(session, session.ask(message))


def _answer_as_json(session: ChatSession, message: str, base: str) -> None:
    from dataclasses import asdict

    from rung.cli.console import print_json

    asked = session.ask(message)
    began = time.perf_counter()
    for _ in asked.stream():
        pass
    seconds = time.perf_counter() - began
    answer = asked.keep()
    print_json(
        {
            "run": base,
            "answer": answer.text,
            "finish_reason": answer.finish_reason,
            "prompt_tokens": answer.prompt_tokens,
            "tokens": len(answer.token_ids),
            "tokens_per_second": round(len(answer.token_ids) / seconds, 1),
            "dropped_messages": answer.dropped,
            "options": {name: value for name, value in asdict(asked.options).items() if name != "stop_tokens"},
            "messages": [one.to_json() for one in session.messages],
        }
    )


def _converse(session: ChatSession, base: str) -> None:
    """Read, answer, until the end of input."""
    at_terminal = sys.stdin.isatty()
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # a strict decoder would lose the lines behind a bad one
    if at_terminal:
        import readline  # noqa: F401 - `input` then edits lines and remembers them

        _say(f"{base}, context of {session.talker.context_length:,} tokens", dim=True)
        typer.secho(_TO_READ, err=True, dim=True)
    while True:
        try:
            line = input("> " if at_terminal else "").strip()
        except EOFError:
            break
        except KeyboardInterrupt:
            typer.secho("\n(Ctrl-D or /exit leaves)", err=True, dim=True)
            continue
        if line.partition(" ")[0] in ("/exit", "/quit"):
            break
        if line:
            try:
                _obey(session, line)
            except RungError as error:
                _say(str(error), fg="red")
            except KeyboardInterrupt:
                _note("broken off; the conversation is as it was")
    if at_terminal:
        typer.echo()


def _obey(session: ChatSession, line: str) -> None:
    """Carry out a line: a command, or something said. RungErrors leave the conversation as it was."""
    _require_utf8(line)
    command, _, rest = line.partition(" ")
    rest = rest.strip()
    match command:
        case "/regenerate" | "/reset" | "/tokens" | "/help" if rest:
            raise UsageError(f"{command} takes nothing behind it", hint="/help lists what there is")
        case "/regenerate":
            _show(session, session.regenerate())
        case "/system" if rest:
            session.set_system(rest)
            _note("the system message is set; what was said stays")
        case "/system":
            _note(f"system: {session.system}" if session.system is not None else "there is no system message")
        case "/save" | "/load" if not rest:
            raise UsageError(f"{command} needs the name of a file", hint=f"{command} talk.jsonl")
        case "/save":
            session.save(Path(rest).expanduser())
            _note(f"saved {len(session.messages)} messages to {rest}")
        case "/load":
            session.load(Path(rest).expanduser())
            _note(f"loaded {len(session.messages)} messages, {session.tokens:,} tokens")
        case "/reset":
            session.reset()
            _note("forgotten" + ("; the system message stays" if session.system is not None else ""))
        case "/tokens":
            _note(f"{session.tokens:,} of {session.talker.context_length:,} tokens of the context are used")
        case "/help":
            typer.echo(_HELP, err=True)
        case _ if command.startswith("/"):
            from rung.errors import did_you_mean

            known = [one.split()[0] for one in _HELP.splitlines()]
            raise UsageError(f"there is no {command}{did_you_mean(command, known)}", hint="/help lists what there is")
        case _:
            _show(session, session.ask(line))


def _require_utf8(line: str) -> None:
    try:
        line.encode()
    except UnicodeEncodeError as error:
        raise DataError("this line is not valid UTF-8", hint="send text in UTF-8: iconv -t utf-8") from error


def _show(session: ChatSession, asked: Asked) -> None:
    """Write an answer as it comes; Ctrl-C stops it, and what was written stays part of the conversation."""
    if asked.dropped:
        _note(
            f"the context of {session.talker.context_length:,} tokens is full: the model no longer sees the oldest "
            f"{asked.dropped} messages"
        )
    began = time.perf_counter()
    stopped = False
    try:
        for text in asked.stream():
            write(text, sys.stdout)
    except KeyboardInterrupt:
        stopped = True
    write("\n", sys.stdout)
    _tell(session, asked.keep(), seconds=time.perf_counter() - began, stopped=stopped)


def _tell(session: ChatSession, answer: ChatAnswer, *, seconds: float, stopped: bool) -> None:
    """How long the answer was, and why it ended where the model did not end it."""
    count = len(answer.token_ids)
    used = answer.prompt_tokens + count
    if stopped:
        _note("stopped" if answer.text else "stopped before a word: your message is not kept")
    elif not answer.text:
        _note("the model ended its turn without a word: your message is not kept")
    elif answer.finish_reason == "length":
        full = used >= session.talker.context_length
        _note(f"cut off: {'the context is full' if full else f'--max-tokens {session.options.max_tokens} are written'}")
    if sys.stderr.isatty():
        _note(f"{used:,} of {session.talker.context_length:,} tokens; {count / max(seconds, 1e-9):.0f} tokens/s")


def _note(text: str) -> None:
    _say(f"({text})", dim=True)


def _say(text: str, **style: Any) -> None:
    typer.secho(without_commands(text), err=True, **style)
