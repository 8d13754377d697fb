"""A local generative folder: its scores against transformers, its rung, and a real server in front of it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from scripted_server import TinyTask, labelled

from rung.data.tokenizer import train_tokenizer
from rung.errors import PlanError, RunFolderError
from rung.nets.decoder import CausalLM
from rung.nets.decoder_config import DecoderConfig
from rung.nets.pretrained import save_net
from rung.progress import SILENT
from rung.tasks.prompting.choosing import measured
from rung.tasks.prompting.endpoint import Failed
from rung.tasks.prompting.judging import LocalJudge
from rung.tasks.prompting.local_model import LocalModel
from rung.tasks.prompting.predicting import load
from rung.tasks.prompting.prompted import PromptedRung
from rung.tasks.prompting.templates import TEMPLATES, Example, Prompt

CONTEXT = 512


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny decoder with random weights and a tokenizer of bytes, as transformers opens it too."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer(iter([]), kind="byte", vocab_size=257)
    config = DecoderConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=CONTEXT,
        eos_token_id=tokenizer.eos_token_id,
    )
    generator = torch.Generator().manual_seed(0)
    net = CausalLM(config, generator=generator)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    save_net(net, folder)
    tokenizer.save(folder)
    (folder / "chat_template.jinja").write_text("{% for message in messages %}{{ message.content }}{% endfor %}")
    return folder


def test_label_scores_are_those_of_transformers(folder: Path) -> None:
    import transformers

    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model, prompt = LocalModel(folder), Prompt(TEMPLATES[0], ("ham", "spam"), (Example("Win!", "spam"),))
    tokenizer = model._tokenizer
    texts = ("a prize", "", "Grüße, 你好", "lunch " * 9, "a prize")
    for text, found in zip(texts, model.label_logprobs(prompt, texts), strict=True):
        assert not isinstance(found, Failed)
        for label, logprobs in zip((" ham", " spam"), found, strict=True):
            start = [tokenizer.eos_token_id, *tokenizer.encode(prompt.render(text))]
            ids = torch.tensor([start + tokenizer.encode(label)])
            with torch.inference_mode():
                expected = theirs(ids).logits[0].double().log_softmax(-1)
            rows = torch.arange(len(start) - 1, ids.shape[1] - 1)
            np.testing.assert_allclose(logprobs, expected[rows, ids[0, len(start) :]], atol=2e-5)


def test_scores_depend_on_what_else_is_asked_by_rounding_alone(folder: Path) -> None:
    prompt, other = (Prompt(template, ("ham", "spam")) for template in TEMPLATES[:2])
    model = LocalModel(folder)
    alone = LocalJudge(LocalModel(folder)).judge(prompt, ["a prize"]).probabilities
    LocalJudge(model).judge(other, ["another"])
    among = LocalJudge(model).judge(prompt, ["lunch", "a prize", "x" * 100]).probabilities
    for scoring, probabilities in alone.items():
        np.testing.assert_allclose(probabilities[0], among[scoring][1], atol=1e-5)


def test_what_does_not_fit_the_context_is_a_failure(folder: Path) -> None:
    model, prompt = LocalModel(folder), Prompt(TEMPLATES[0], ("ham", "spam"))
    room = CONTEXT - 1 - len(prompt.render("").encode()) - len(b" spam")
    found = LocalJudge(model).judge(prompt, ["x" * room, "x" * (room + 1)])
    np.testing.assert_array_equal(found.failed, [False, True])
    assert "do not fit the context of 512" in found.failures[1]
    settings = measured(prompt, 0, found, np.array([0, 0]))
    assert all(setting.accuracy <= 0.5 for setting in settings)
    (refused,) = model.write(prompt, ["x" * CONTEXT], samples=1, temperature=1.0, max_tokens=1)
    assert isinstance(refused, Failed)


def test_the_whole_way(folder: Path, task: TinyTask, tmp_path: Path) -> None:
    rung = PromptedRung(str(folder))
    assert rung.data_leaves_machine is False
    plan = rung.plan(task, None, seed=0) | {"validation_items": 4, "draws": 2}
    assert plan["estimate"]["cost"] is None
    report = rung.fit(task, plan, items=np.arange(40), seed=0, folder=tmp_path / "one", progress=SILENT)
    rung.fit(task, plan, items=np.arange(40), seed=0, folder=tmp_path / "two", progress=SILENT)
    one, two = ((tmp_path / name / "config.json").read_bytes() for name in ("one", "two"))
    assert one == two
    assert {table["scoring"] for table in report.chosen["variation"]} == {"sum", "mean", "pmi"}
    predictor = load(tmp_path / "one")
    texts = task.items["test"].texts[:5]
    predictions = predictor.predict(texts)
    np.testing.assert_allclose(predictions.probabilities.sum(axis=1), 1)
    again = predictor.predict(texts, batch_size=1).probabilities
    np.testing.assert_array_equal(again, predictions.probabilities)
    assert predictor.num_parameters is not None
    assert predictor.num_parameters > 0
    assert predictor.cost_per_1000.not_measured is not None
    cold = predictor.answer_variation(texts, samples=3, temperature=0.0)
    assert cold["varying_share"] == 0


def test_texts_that_cannot_fit_are_told_before_anything_runs(folder: Path, task: TinyTask) -> None:
    task.items["valid"] = labelled(["x" * CONTEXT] * 3, [0, 1, 0], task.label_names)
    with pytest.raises(PlanError, match="no validation text fits the context of 512 tokens"):
        PromptedRung(str(folder)).plan(task, None, seed=0)


def test_examples_that_do_not_fit_the_context_are_left_out(folder: Path, task: TinyTask) -> None:
    task.items["train"] = labelled([f"{n} " * 60 for n in range(40)], [n % 2 for n in range(40)], task.label_names)
    assert PromptedRung(str(folder)).plan(task, None, seed=0)["shots"] == [0]


def test_another_model_in_the_same_place_is_noticed(folder: Path, task: TinyTask, tmp_path: Path) -> None:
    import shutil

    copied = tmp_path / "model"
    shutil.copytree(folder, copied)
    rung = PromptedRung(str(copied))
    plan = rung.plan(task, None, seed=0) | {"validation_items": 2, "draws": 2, "shots": [0]}
    rung.fit(task, plan, items=np.arange(40), seed=0, folder=tmp_path / "run", progress=SILENT)
    net = CausalLM(LocalModel(copied)._net.config)
    save_net(net, copied)
    with pytest.raises(RunFolderError, match="other weights"):
        load(tmp_path / "run")


@contextmanager
def transformers_serve(folder: Path) -> Iterator[str]:
    """`transformers serve` in front of `folder`, on a free port of this machine, without any network."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = "from transformers.cli.transformers import main; main()"
    command = [sys.executable, "-c", start, "serve", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"},
    )
    assert process.stdout is not None
    seen = []
    try:
        for line in process.stdout:
            seen.append(line)
            if "Uvicorn running" in line:
                break
        else:
            pytest.fail("the server did not start:\n" + "".join(seen[-20:]))
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.mark.slow
def test_a_real_server_answers(folder: Path, task: TinyTask, tmp_path: Path) -> None:
    """`transformers serve`, an OpenAI-compatible server written by others, says what the same model writes here."""
    for package in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(package, reason="transformers serve needs transformers[serving]")
    with transformers_serve(folder) as url:
        rung = PromptedRung(url, model=str(folder), shots=(0,))
        plan = rung.plan(task, None, seed=0) | {"validation_items": 3}
        rung.fit(task, plan, items=np.arange(40), seed=0, folder=tmp_path / "run", progress=SILENT)
        predictor = load(tmp_path / "run")
        texts = task.items["test"].texts[:4]
        predictions = predictor.predict(texts)
        shown = predictor.details()
    assert predictions.probabilities.shape == (4, 2)
    assert shown["parse_failures"] == 4, "random weights name no label"
    prompts = [predictor.prompt.render(text) for text in texts]
    assert shown["prompt_tokens"] == sum(len(prompt.encode()) for prompt in prompts), "one token a byte"
    written = LocalModel(folder)._model.generate(prompts, temperature=0, max_tokens=16)
    for failure, generation in zip(shown["failures"], written, strict=True):
        assert repr(generation.text)[1:8] in failure["problem"]
    answered = json.loads((tmp_path / "run" / "config.json").read_text())
    assert answered["form"] in ("logprobs", "plain")
