"""Recurrent and feed-forward language models through the whole way: the contracts that the decoder's tests hold too."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import rung
from rung.errors import GenerationError, PlanError, RecipeError, RungError
from rung.generation.options import SamplingOptions
from rung.runfolder import file_sha256, verify

FAMILIES = ("rnn", "lstm", "gru", "feedforward")
STEPS = 24
TINY: dict[str, Any] = {
    "tokenizer.vocab_size": 320,
    "net.hidden_size": 24,
    "net.embedding_size": 16,
    "net.dropout": 0.2,
    "training.batch_size": 4,
    "training.micro_batch_size": 2,
    "training.learning_rate": 0.01,
    "training.validate_every": 6,
    "training.checkpoint_every": 6,
    "training.precision": "fp32",
    "training.threads": 1,
}
LOOKS: dict[str, dict[str, Any]] = {
    "feedforward": {"net.max_position_embeddings": 5},
    **{cell: {"net.num_hidden_layers": 2, "net.backpropagate_through": 16} for cell in ("rnn", "lstm", "gru")},
}
GREEDY = SamplingOptions(temperature=0, max_tokens=25)
PROMPTS = ["Once upon a time", "", "é", "x", "to be or not to be"]


def settings(family: str, **changes: Any) -> dict[str, Any]:
    return {**TINY, **LOOKS[family], "net.family": family, **{k.replace("__", "."): v for k, v in changes.items()}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


@pytest.fixture(scope="module", autouse=True)
def _cache(folder: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNG_CACHE", str(folder / "cache"))
        yield


@pytest.fixture(scope="module")
def text(folder: Path) -> Path:
    """Many short documents, so that a window meets several ends of text."""
    draw = random.Random(0)  # noqa: S311 - no secret
    words = ["".join(draw.choices("abcdefghiklmnoprstu", k=draw.randint(2, 8))) for _ in range(120)]
    path = folder / "text.jsonl"
    documents = [" ".join(draw.choices(words, k=draw.randint(10, 90))) + "." for _ in range(300)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents), encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def finished(folder: Path, text: Path, family: str) -> rung.TrainSummary:
    return rung.train([text], steps=STEPS, out=folder / family, overrides=settings(family))


def weights(run: Path) -> str:
    return file_sha256(run / "model.safetensors")


def test_the_run_folder_is_whole_and_says_what_it_is(finished: rung.TrainSummary, family: str) -> None:
    header = verify(finished.run)
    assert header["state"] == "finished"
    assert json.loads((finished.run / "config.json").read_text())["model_type"] == f"rung-lm-{family}"
    assert finished.bits_per_byte is not None
    card = (finished.run / "README.md").read_text(encoding="utf-8")
    assert f"{finished.bits_per_byte.value:.4f}" in card
    assert "AutoModel" not in card  # transformers does not know it
    lines = [json.loads(line) for line in (finished.run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0] - 0.3
    assert any("bits_per_byte" in line.get("validation", {}) for line in lines)


def test_an_equal_plan_gives_equal_weights_whoever_looks(
    finished: rung.TrainSummary, folder: Path, family: str
) -> None:
    """Neither validations nor vital signs leave a trace in the states that are carried on."""
    looked_at = {"training.validate_every": 1, "training.vital_signs_every": 1}
    watched = rung.train(recipe=finished.run, out=folder / f"{family}-watched", overrides=looked_at)
    last = f"checkpoints/step-{STEPS:08d}"
    assert weights(watched.run / last) == weights(finished.run / last)


def test_interrupted_and_resumed_equals_uninterrupted(finished: rung.TrainSummary, folder: Path, family: str) -> None:
    """Bit for bit: the states of all lanes come back with the optimiser's."""
    cut = folder / f"{family}-cut"
    shutil.copytree(finished.run, cut)
    for path in sorted((cut / "checkpoints").iterdir()):
        if int(path.name.removeprefix("step-")) > 12:
            shutil.rmtree(path)
    header = json.loads((cut / "rung.json").read_text(encoding="utf-8"))
    (cut / "rung.json").write_text(json.dumps(header | {"state": "training", "files": {}}), encoding="utf-8")
    states = load_file(cut / "checkpoints/step-00000012/trainer/carried.safetensors")["states"]
    assert len(states) == 4
    assert bool(states.any())
    resumed = rung.resume(cut)
    assert resumed.steps == STEPS
    last = f"checkpoints/step-{STEPS:08d}"
    assert weights(cut / last) == weights(finished.run / last)
    carried = "trainer/carried.safetensors"
    assert file_sha256(cut / last / carried) == file_sha256(finished.run / last / carried)


def test_a_finished_run_is_extended(finished: rung.TrainSummary, folder: Path, family: str) -> None:
    longer = rung.extend(finished.run, steps=10, out=folder / f"{family}-longer")
    parent = json.loads((longer.run / "rung.json").read_text(encoding="utf-8"))["parent"]
    assert longer.steps == parent["step"] + 10
    assert longer.parameters == finished.parameters


def test_bits_per_byte_equal_brute_force(finished: rung.TrainSummary, folder: Path, text: Path) -> None:
    """Every document read alone, from the end-of-text token on, one token after the other."""
    model = rung.load(finished.run)
    texts = [json.loads(line)["text"] for line in text.read_text(encoding="utf-8").splitlines()[:8]]
    some = folder / "some.jsonl"
    some.write_text("".join(json.dumps({"text": one}) + "\n" for one in texts), encoding="utf-8")
    nats = 0.0
    for one in texts:
        stream = [model.tokenizer.eos_token_id, *model.tokenizer.encode(one)]
        state = model.net.model.begin(1)
        logprobs = []
        for token, target in pairwise(stream):
            hidden, state = model.net.model.read(torch.tensor([[token]]), state)
            logprobs.append(model.net.lm_head(hidden)[0, 0].double().log_softmax(0)[target].item())
        nats -= sum(logprobs)
        assert model.score(one).logprobs == pytest.approx(logprobs, abs=1e-4)
    expected = nats / math.log(2) / sum(len(one.encode()) for one in texts)
    assert model.evaluate([some]).bits_per_byte.value == pytest.approx(expected, abs=1e-5)
    again = rung.evaluate(finished.run).bits_per_byte
    assert finished.bits_per_byte is not None
    assert again.value == pytest.approx(finished.bits_per_byte.value, abs=1e-9)


def test_greedy_text_equals_naive_recomputation(finished: rung.TrainSummary) -> None:
    model = rung.load(finished.run)
    together = model.engine.generate(PROMPTS, GREEDY)
    for prompt, generation in zip(PROMPTS, together, strict=True):
        tokens = model.tokenizer.encode(prompt) or [model.tokenizer.eos_token_id]
        chosen: list[int] = []
        while len(chosen) < 25 and model.tokenizer.eos_token_id not in chosen:
            states = model.net.model.read(torch.tensor([[*tokens, *chosen]]), model.net.model.begin(1))
            scores = model.net.lm_head(states.hidden[0, -1])[: model.tokenizer.vocab_size]
            chosen.append(int(scores.argmax()))
        assert generation.token_ids == chosen


def test_alone_equals_in_company_and_longer_than_any_window(finished: rung.TrainSummary) -> None:
    drawn = SamplingOptions(temperature=1.1, top_p=0.95, max_tokens=20, seed=3)
    for invariant in (False, True):
        engine = rung.load(finished.run, invariant=invariant).engine
        alone = [engine.generate(prompt, drawn)[0] for prompt in PROMPTS]
        together = engine.generate(PROMPTS, drawn)
        assert [one.token_ids for one in together] == [one.token_ids for one in alone]
        if invariant:
            assert together == alone
    with pytest.raises(GenerationError, match="int8"):
        rung.load(finished.run, precision="int8").generate("a")
    (half,) = rung.load(finished.run, precision="bf16").generate("a", max_tokens=3)
    assert len(half.token_ids) <= 3


@pytest.mark.parametrize("kind", ["byte", "character"])
def test_any_tokenizer_serves(folder: Path, text: Path, kind: str) -> None:
    overrides = settings("lstm", tokenizer__kind=kind)
    summary = rung.train([text], steps=3, out=folder / f"lstm-{kind}", overrides=overrides)
    assert summary.bits_per_byte is not None
    assert 0 < (summary.bits_per_byte.value or 0) < 12


@pytest.mark.parametrize("family", ["decoder", "feedforward", "lstm", "rnn"])
@pytest.mark.parametrize("wanted", [300_000, 1_500_000])
def test_a_number_of_parameters_is_met(text: Path, family: str, wanted: int) -> None:
    overrides = {"net.family": family, "net.parameters": wanted, "tokenizer.vocab_size": 512}
    made = rung.plan([text], steps=10, overrides=overrides)
    assert made.config.num_parameters == pytest.approx(wanted, rel=0.15)
    assert made.recipe.net.parameters == wanted


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        ({"net.family": "lstm", "net.num_attention_heads": 2}, RecipeError, "num_attention_heads.*lstm"),
        ({"net.family": "lstm", "net.max_position_embeddings": 64}, RecipeError, "max_position_embeddings.*lstm"),
        ({"net.family": "lstm", "net.model_type": "llama"}, RecipeError, "model_type.*lstm"),
        ({"net.family": "feedforward", "net.num_hidden_layers": 2}, RecipeError, "num_hidden_layers.*feedforward"),
        ({"net.backpropagate_through": 20}, RecipeError, "backpropagate_through.*decoder"),
        ({"net.family": "gru", "training.compile": True}, PlanError, "gru is not compiled"),
        ({"net.family": "lstn"}, RecipeError, "family"),
        ({"net.family": "lstm", "net.dropout_kind": "variational"}, RecipeError, "dropout_kind"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    folder: Path, text: Path, overrides: dict[str, Any], error: type[RungError], message: str
) -> None:
    with pytest.raises(error, match=message):
        rung.train([text], steps=2, out=folder / "never", overrides=overrides)
    assert not (folder / "never").exists()


@pytest.mark.parametrize("family", ["lstm", pytest.param("feedforward", marks=pytest.mark.slow)], scope="function")
def test_two_ranks_train_what_one_trains(folder: Path, text: Path, family: str) -> None:
    """Dropout and carried states too, and the checkpoint holds the states of all lanes."""
    one = rung.train([text], steps=8, out=folder / f"{family}-one", overrides=settings(family))
    two = folder / f"{family}-two"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "rung"]
    assignments = [f"{key}={value}" for key, value in settings(family).items() if key != "net.family"]
    wanted = ["train", str(text), "--net", family, "--steps", "8", "--out", str(two)]
    wanted += [part for assignment in assignments for part in ("--set", assignment)]
    environment = {**os.environ, "PYTHONPATH": str(Path(rung.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, *wanted], capture_output=True, text=True, env=environment, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    for name in ("model.safetensors", "trainer/carried.safetensors"):
        ours, theirs = (load_file(run / "checkpoints/step-00000008" / name) for run in (one.run, two))
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            torch.testing.assert_close(theirs[key], value, rtol=1e-5, atol=1e-6)
    lines = [(run / "metrics.jsonl").read_text().splitlines() for run in (one.run, two)]
    ours, theirs = ([json.loads(x)["validation"]["bits_per_byte"] for x in each if "validation" in x] for each in lines)
    assert ours == pytest.approx(theirs, rel=1e-5)
