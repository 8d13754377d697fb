"""`rung tune --task chat`: the form is learned, the run resumes, the folder is one that others open."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import rung
from rung.data.chat_template import CHATML
from rung.data.packing import PackedRows, TokenExamples
from rung.errors import DataError, RecipeError, RunFolderError, TokenizerError, UsageError
from rung.nets.lora import LoraConfig
from rung.objectives.answers import AnswerTokens, answer_logprobs
from rung.objectives.next_token import NextToken
from rung.progress import Highlighted, SilentProgress
from rung.runfolder import write_json
from rung.tasks.chat.measuring import ANSWER_LOSS, TURNS_ENDED, answer_losses
from rung.tasks.chat.preflight import preflight
from rung.tasks.chat.preparation import open_base, prepare
from rung.tasks.chat.tuning_base import base_network
from rung.tasks.chat.tuning_recipe import ChatRecipe
from rung.tasks.chat.tuning_summary import BEFORE, GAIN
from rung.tasks.tuning.folder import open_language_model
from rung.tasks.tuning.method import TuningMethod
from rung.tasks.tuning.summary import Tuned
from rung.tasks.tuning.tune import plan, resume, tune
from rung.training.meter import SilentDisplay, StepReport

LORA = TuningMethod("lora", LoraConfig(r=4))
SETTINGS: dict[str, Any] = {
    "training.precision": "fp32",
    "training.threads": 1,
    "training.batch_size": 4,
    "training.micro_batch_size": 2,
    "training.context_length": 120,
    "training.learning_rate": 0.01,
    "training.validate_every": 10,
    "measuring.prompts": 4,
    "measuring.max_tokens": 20,
    "data.test_share": 0.2,
}


def start(base: Path, talks: Path, out: Path, **wishes: Any) -> Tuned:
    overrides = SETTINGS | wishes.pop("overrides", {})
    return tune(base, [talks], task="chat", out=out, overrides=overrides, **wishes)


@pytest.fixture(scope="module")
def tuned(base: Path, talks: Path, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    return start(base, talks, tmp_path_factory.mktemp("tuned") / "run", steps=60)


def test_the_form_is_learned(tuned: Tuned) -> None:
    assert tuned.ended == "finished"
    assert tuned.record(ANSWER_LOSS).value < tuned.record(BEFORE).value / 2  # type: ignore[operator]
    gain = tuned.record(GAIN)
    assert gain.interval is not None
    assert gain.interval.high < 0
    assert tuned.record(TURNS_ENDED).value == 1.0
    told = "\n".join(tuned.lines())
    assert "rung chat" in told
    assert json.loads(json.dumps(tuned.to_json()))["steps"] == 60


def test_the_folder_is_one_that_transformers_opens_and_talks_with(tuned: Tuned) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tuned.run)
    model = AutoModelForCausalLM.from_pretrained(tuned.run)
    messages = [{"role": "user", "content": "wind moon"}]
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    written = model.generate(**inputs, do_sample=False, max_new_tokens=20)[0, inputs["input_ids"].shape[1] :]
    ours = rung.load(tuned.run).chat(messages, temperature=0, max_tokens=20)  # type: ignore[union-attr]
    assert ours.token_ids == written.tolist()
    assert tokenizer.decode(written).endswith("<|im_end|>")
    assert ours.prompt_tokens == inputs["input_ids"].shape[1]
    generation = json.loads((tuned.run / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [tokenizer.convert_tokens_to_ids("<|im_end|>"), tokenizer.eos_token_id]


class Impatient(SilentDisplay):
    def update(self, report: StepReport) -> None:
        if report.step == 3:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_an_interrupted_run_goes_on_bit_for_bit(
    kind: str, base: Path, tuned: Tuned, talks: Path, tmp_path: Path
) -> None:
    begun = base if kind == "full" else tuned.run
    wishes: dict[str, Any] = {"steps": 12, "method": TuningMethod() if kind == "full" else LORA}
    start(begun, talks, tmp_path / "whole", **wishes)
    stopped = start(begun, talks, tmp_path / "parts", display=Impatient(), **wishes)
    assert (stopped.ended, stopped.records) == ("interrupted", ())
    assert stopped.steps < 12
    finished = resume(tmp_path / "parts")
    assert finished.ended == "finished"
    name = "model.safetensors" if kind == "full" else "adapter_model.safetensors"
    whole, parts = (load_file(tmp_path / run / name) for run in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    with pytest.raises(RunFolderError, match="finished"):
        resume(tmp_path / "parts")


def test_a_run_does_not_go_on_over_other_conversations(base: Path, talks: Path, tmp_path: Path) -> None:
    copy = tmp_path / "talks.jsonl"
    lines = talks.read_text().splitlines()
    copy.write_text("\n".join(lines))
    assert start(base, copy, tmp_path / "run", steps=12, display=Impatient()).ended == "interrupted"
    copy.write_text("\n".join(lines[1:]))
    with pytest.raises(RunFolderError, match="data changed"):
        resume(tmp_path / "run")


def test_lora_leaves_the_base_and_improves_on_it(tuned: Tuned, talks: Path, tmp_path: Path) -> None:
    done = start(tuned.run, talks, tmp_path / "run", steps=20, method=LORA, overrides={"seed": 0})
    assert not (done.run / "model.safetensors").exists()
    before = open_language_model(tuned.run).state_dict()
    after = open_language_model(done.run).state_dict()
    assert any(not torch.equal(before[key], after[key]) for key in before)
    assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])


def test_an_encoder_is_told_that_it_cannot_chat(tmp_path: Path) -> None:
    """Before anything is read of its tokenizer, which names no end of a text."""
    write_json(tmp_path / "config.json", {"model_type": "bert"})
    with pytest.raises(UsageError, match=r"the kind bert \(encoders\) cannot be tuned to chat") as caught:
        open_base(tmp_path)
    assert "give a decoder" in (caught.value.hint or "")
    write_json(tmp_path / "config.json", {"model_type": "mamba"})
    with pytest.raises(RunFolderError, match="'mamba' is not supported"):
        open_base(tmp_path)


def test_lora_cannot_teach_new_tokens(base: Path, talks: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="LoRA trains no embeddings"):
        start(base, talks, tmp_path / "run", steps=2, method=LORA)
    with pytest.raises(UsageError, match="no new head"):
        start(base, talks, tmp_path / "run", steps=2, method=TuningMethod("frozen"))
    assert not (tmp_path / "run").exists()


def test_a_template_of_ones_own(base: Path, talks: Path, tmp_path: Path) -> None:
    template = tmp_path / "mine.jinja"
    template.write_text(CHATML)
    with pytest.raises(TokenizerError, match=r"<\|im_end\|>, <\|im_start\|>, which are no special tokens"):
        start(base, talks, tmp_path / "run", steps=2, overrides={"data.template": str(template)})
    with pytest.raises(TokenizerError, match="cannot be read"):
        start(base, talks, tmp_path / "run", steps=2, overrides={"data.template": "nowhere"})
    plain = "{% for m in messages %}{{ m.content + eos_token }}{% endfor %}"
    template.write_text(plain)
    done = start(base, talks, tmp_path / "run", steps=2, overrides={"data.template": str(template)})
    assert json.loads((done.run / "tokenizer_config.json").read_text())["chat_template"] == plain


def test_plans(base: Path, talks: Path) -> None:
    made = plan(base, [talks], task="chat", epochs=3, overrides=SETTINGS)
    assert made.epochs == pytest.approx(3, abs=0.5)
    assert any("the assistant's" in line for line in made.lines())
    timed = plan(base, [talks], task="chat", minutes=0.5, overrides={**SETTINGS, "training.batch_size": None})
    assert timed.seconds is not None
    with pytest.raises(RecipeError, match="one of"):
        plan(base, [talks], task="chat", epochs=3, steps=4)
    with pytest.raises(UsageError, match="no conversations to tune on"):
        plan(base, [], task="chat")


def test_long_conversations_are_not_cut_in_silence(base: Path, talks: Path) -> None:
    short = {**SETTINGS, "training.context_length": 40}
    with pytest.raises(DataError, match="have more tokens than a row's 40"):
        plan(base, [talks], task="chat", steps=2, overrides=short)
    dropping = plan(base, [talks], task="chat", steps=2, overrides={**short, "data.overlong": "drop"})
    assert any("were left out" in line for line in dropping.lines())


class Listening(SilentProgress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


def test_targets_that_are_not_there_are_refused_before_anything_is_shown(
    tuned: Tuned, talks: Path, tmp_path: Path
) -> None:
    listening, method = Listening(), TuningMethod("lora", LoraConfig(target_modules=("nonsense",)))
    with pytest.raises(UsageError, match="nonsense"):
        start(tuned.run, talks, tmp_path / "run", steps=2, method=method, progress=listening)
    assert not listening.said


def test_three_examples_are_shown_with_what_is_learned(base: Path, talks: Path) -> None:
    progress = Listening()
    plan(base, [talks], task="chat", steps=2, overrides=SETTINGS, progress=progress)
    shown = [message for message in progress.said if isinstance(message, Highlighted)]
    assert len(shown) == 3
    for message in shown:
        learned = [text for text, stands_out in message.parts if stands_out]
        assert all(text.endswith("<|im_end|>") for text in learned)
        assert "⟦" in message
        assert "<|im_start|>user" in message


def test_masked_labels_are_refused(base: Path) -> None:
    examples = TokenExamples(np.arange(4, dtype=np.int32), np.zeros(4, bool), np.array([4]))
    with pytest.raises(DataError, match="all labels are masked"):
        preflight(examples, open_base(base).tokenizer)


# What is computed -----------------------------------------------------------------------------------------------------


def rows_of(base: Path, talks: Path) -> tuple[Any, PackedRows, list[str]]:
    recipe = ChatRecipe(base=str(base), method=TuningMethod().to_json())
    recipe = recipe.with_overrides({**SETTINGS, "data.files": (str(talks),)})
    recipe, prepared = prepare(recipe, SilentProgress())
    net = base_network(prepared.base, recipe)
    for parameter in net.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    return net, prepared.rows["test"], [item.id for item in prepared.kept("test").items]


def test_the_loss_is_that_of_next_tokens_on_the_labels(base: Path, talks: Path) -> None:
    net, rows, _ = rows_of(base, talks)
    batch = rows.collate(range(len(rows)))
    ours, theirs = AnswerTokens()(net, batch), NextToken()(net, batch)
    assert int(ours.count) == int(theirs.count) == rows.examples.num_targets
    torch.testing.assert_close(ours.total, theirs.total)
    ours.total.backward()  # type: ignore[no-untyped-call]
    mine = [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None]
    net.zero_grad()
    theirs.total.backward()  # type: ignore[no-untyped-call]
    yours = [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
    torch.testing.assert_close(mine, yours)


def test_log_probabilities_of_answers_are_those_of_each_alone(base: Path, talks: Path) -> None:
    net, rows, ids = rows_of(base, talks)
    together = answer_losses(net, rows, ids, batch_size=2)
    assert together.weights.sum() == rows.examples.num_targets
    with torch.no_grad():
        for number in range(len(ids)):
            example = rows.examples.example(number)
            scores = net.lm_head(net.model(net.model.embed(torch.tensor([example.ids]))).hidden)[0].log_softmax(-1)
            learned = [place for place in range(1, len(example)) if example.assistant[place]]
            wanted = -sum(float(scores[place - 1, example.ids[place]]) for place in learned)
            assert together.values[number] == pytest.approx(wanted, rel=1e-4)
            assert together.weights[number] == len(learned)
    batch = rows.collate([0])
    sums, counts = answer_logprobs(net, batch, 50)
    assert sums.requires_grad
    assert int((counts > 0).sum()) == len(rows.rows[0])
