"""Vital signs: the right numbers, at the right steps, at no cost to what is trained."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from training_toy import ToyBatches, ToyNet, toy_net, toy_objective, toy_run, toy_settings, weights

from rung.errors import RecipeError
from rung.nets.decoder import CausalLM, DecoderConfig
from rung.nets.recurrent_language_model import RecurrentLM, RecurrentLMConfig
from rung.objectives.next_token import NextToken
from rung.training.contracts import LoopSettings
from rung.training.distributed import alone
from rung.training.gradient_reach import gradient_reach
from rung.training.gradients import BatchGradient
from rung.training.layers import layers_of
from rung.training.optimizers import OPTIMIZERS, OptimizerName, build_optimizer
from rung.training.row_optimizer import RowAdagrad
from rung.training.vital_signs import Examiner, VitalSigns

CPU = torch.device("cpu")


def signs_in(run_folder: Path) -> dict[int, dict[str, Any]]:
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["vital_signs"] for line in lines if "vital_signs" in line}


def examined(net: nn.Module, settings: LoopSettings, optimizer: Any = None) -> VitalSigns:
    """The vital signs of one step of `net` on the toy's first batch."""
    optimizer = optimizer or build_optimizer(net, name="sgd", learning_rate=0.5)
    gradient = BatchGradient(
        net=net, objective=toy_objective, batches=ToyBatches(), optimizer=optimizer, settings=settings, world=alone()
    )
    batch = gradient.compute(0, lambda: 0)
    examiner = Examiner(net, toy_objective, ToyBatches(), settings, CPU)
    return examiner.take(lambda: optimizer.step(1.0), first_sample=0, gradient_norm=batch.norm)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_looking_changes_no_bit_of_weights_and_optimiser(tmp_path: Path, optimizer: OptimizerName) -> None:
    seen = toy_run(tmp_path / "seen", toy_settings(vital_signs_every=1), optimizer=optimizer)
    unseen = toy_run(tmp_path / "unseen", toy_settings(vital_signs_every=0), optimizer=optimizer)
    assert weights(seen.checkpoint) == weights(unseen.checkpoint)
    assert list(signs_in(tmp_path / "seen")) == list(range(1, 13))
    assert signs_in(tmp_path / "unseen") == {}


def test_norms_are_those_of_the_whole_batch_before_clipping() -> None:
    free, clipped = (examined(toy_net(0.0), toy_settings(gradient_clip=limit)) for limit in (None, 1e-3))
    net = toy_net(0.0)
    loss = toy_objective(net, ToyBatches().batch(np.arange(8)))
    loss.mean().backward()
    for name in ("embed", "up", "down", "norm", "lm_head"):
        gradients = [p.grad for p in net.get_submodule(name).parameters() if p.grad is not None]
        expected = float(torch.cat([gradient.flatten() for gradient in gradients]).norm())
        assert free.layers[name]["gradient_norm"] == pytest.approx(expected, rel=1e-4)
        assert clipped.layers[name]["gradient_norm"] == pytest.approx(expected, rel=1e-3)
        size = float(torch.cat([p.detach().flatten() for p in net.get_submodule(name).parameters()]).norm())
        assert free.layers[name]["weight_norm"] == pytest.approx(size, rel=1e-5)
        # Plain gradient descent moves the weights by the rate times the gradient.
        assert free.layers[name]["update_ratio"] == pytest.approx(0.5 * expected / size, rel=1e-3)
    assert clipped.layers["up"]["update_ratio"] < 1e-2 * free.layers["up"]["update_ratio"]


def test_activations_are_those_of_a_pass_without_dropout() -> None:
    found = examined(toy_net(0.5), toy_settings(micro_batch_size=4))
    net, heard = toy_net(0.5), []
    optimizer = build_optimizer(net, name="sgd", learning_rate=0.5)
    examined(net, toy_settings(micro_batch_size=4), optimizer)  # brings it to the weights after the step
    net.eval().up.register_forward_hook(lambda _m, _i, output: heard.append(output.detach()))
    toy_objective(net, ToyBatches().batch(np.arange(4)))
    assert found.layers["up"]["mean"] == pytest.approx(float(heard[0].mean()), rel=1e-4)
    assert found.layers["up"]["std"] == pytest.approx(float(heard[0].std()), rel=1e-2)
    assert "saturated" not in found.layers["up"]


def test_units_without_gradient_are_the_dead_ones() -> None:
    net = toy_net(0.0)
    with torch.no_grad():
        net.up.bias[:16] = -1e3  # a quarter of the rectified units never fires
    found = examined(net, toy_settings())
    assert found.layers["up"]["without_gradient"] == 0.25
    assert found.layers["down"]["without_gradient"] == 0.0
    assert "without_gradient" not in found.layers["embed"]


def test_saturated_outputs_of_a_recurrent_layer_are_counted() -> None:
    class Recurrent(ToyNet):
        def __init__(self) -> None:
            super().__init__(0.0)
            self.up = nn.RNN(32, 64, batch_first=True)  # type: ignore[assignment]

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = self.lm_head(self.down(self.up(self.embed(tokens))[0]))
            return scores

    torch.manual_seed(0)
    net = Recurrent()
    assert examined(net, toy_settings()).layers["up"]["saturated"] < 0.2
    with torch.no_grad():
        net.up.weight_hh_l0.mul_(100)
    assert examined(net, toy_settings()).layers["up"]["saturated"] > 0.8


def test_of_row_sparse_gradients_only_the_rows_that_move_count() -> None:
    class Sparse(ToyNet):
        def __init__(self) -> None:
            super().__init__(0.0)
            self.embed = nn.Embedding(1000, 32, sparse=True)

    torch.manual_seed(0)
    net = Sparse()
    before = net.embed.weight.detach().clone()
    found = examined(net, toy_settings(gradient_clip=None), RowAdagrad(net, 0.1)).layers["embed"]
    rows = ToyBatches().batch(np.arange(8))["input_ids"].unique()
    moved = (net.embed.weight.detach() - before)[rows].norm() / before[rows].norm()
    assert found["update_ratio"] == pytest.approx(float(moved), rel=1e-4)
    assert found["gradient_norm"] > 0


def test_layers_go_by_the_names_that_people_use() -> None:
    decoder = CausalLM(
        DecoderConfig(
            vocab_size=31,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=16,
            tie_word_embeddings=False,
        )
    )
    layers = layers_of(decoder)
    assert list(layers) == ["embed_tokens", "layers.0", "layers.1", "norm", "lm_head"]
    held = [name for layer in layers.values() for name in layer.parameters]
    assert held == [name for name, _ in decoder.named_parameters()]
    assert list(layers_of(toy_net())) == ["embed", "up", "down", "norm", "lm_head"]
    plain = nn.ParameterDict({"a": nn.Parameter(torch.ones(2))})
    assert list(layers_of(plain)) == ["a"]


def test_due_by_number_or_while_it_is_cheap() -> None:
    def due(every: int | None, seconds: float, spent: float = 0.0) -> list[int]:
        examiner = Examiner(toy_net(), toy_objective, ToyBatches(), toy_settings(400, vital_signs_every=every), CPU)
        examiner._spent, examiner._fastest = spent, 0.0
        return [step for step in range(1, 13) if examiner.is_due(step, seconds)]

    assert due(0, 1e9) == []
    assert due(5, 0.0) == [1, 5, 10]
    assert due(None, 1e9) == [1, 4, 8, 12]  # at most a hundred times in a run
    assert due(None, 99.0, spent=1.0) == [1]
    assert due(None, 101.0, spent=1.0) == [1, 4, 8, 12]
    with pytest.raises(RecipeError, match="vital_signs_every"):
        toy_settings(vital_signs_every=-1)


def test_numbers_that_json_does_not_know_are_left_out() -> None:
    net = toy_net(0.0)
    with torch.no_grad():
        for p in net.down.parameters():
            p.zero_()
    found = examined(net, toy_settings()).layers["down"]
    assert found["weight_norm"] == 0.0
    assert "update_ratio" not in found
    assert all(math.isfinite(value) for value in found.values())


# --- gradient reach -----------------------------------------------------------------------------------------------


def recurrent(cell: Any, hidden_size: int = 16) -> RecurrentLM:
    config = RecurrentLMConfig(
        cell=cell,
        vocab_size=11,
        embedding_size=8,
        hidden_size=hidden_size,
        num_hidden_layers=1,
        eos_token_id=0,
        tie_word_embeddings=False,
    )
    return RecurrentLM(config, generator=torch.Generator().manual_seed(0)).eval()


def tokens(rows: int, time: int) -> torch.Tensor:
    return torch.randint(1, 11, (rows, time), generator=torch.Generator().manual_seed(1))


def test_reach_of_a_linear_recurrence_is_known() -> None:
    """h_t = W h_{t-1} + e_t with W = c Q, Q orthogonal: the gradient d steps back is exactly c^d of the last one."""

    class Linear(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.embed_tokens = nn.Embedding(11, 8)
            self.matrix = factor * torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(2)))[0]

        def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
            embedded: torch.Tensor = self.embed_tokens(input_ids)
            return embedded

        def forward(self, embedded: torch.Tensor, mask: torch.Tensor | None = None) -> Any:  # noqa: ARG002
            from rung.nets.body import States

            hidden, states = torch.zeros(len(embedded), 8), []
            for column in embedded.unbind(1):
                hidden = hidden @ self.matrix + column
                states.append(hidden)
            return States(torch.stack(states, 1), None)

    net = nn.Module()
    net.model = Linear(0.8)
    found = gradient_reach(net, {"input_ids": tokens(3, 40)})
    assert found is not None
    assert (found.steps, found.longest) == (math.ceil(math.log(0.01) / math.log(0.8)), 39)
    assert dict(found.curve)[5] == pytest.approx(0.8**5, rel=1e-4)
    net.model = Linear(1.0)
    whole = gradient_reach(net, {"input_ids": tokens(3, 40)})
    assert whole is not None
    assert whole.steps == whole.longest == 39


def test_padding_changes_no_reach_and_gradients_are_left_alone() -> None:
    net = recurrent("lstm")
    ids = tokens(2, 12)
    padded = {
        "input_ids": torch.cat([ids, torch.full((2, 5), 3)], 1),
        "mask": torch.cat([torch.ones(2, 12), torch.zeros(2, 5)], 1).bool(),
    }
    bare, same = gradient_reach(net, {"input_ids": ids}), gradient_reach(net, padded)
    assert bare is not None
    assert same is not None
    assert [share for _, share in bare.curve] == pytest.approx([share for _, share in same.curve], rel=1e-5)
    assert all(p.grad is None for p in net.parameters())


def test_without_a_body_over_a_sequence_there_is_no_reach() -> None:
    assert gradient_reach(toy_net(), {"input_ids": tokens(2, 5)}) is None
    net = recurrent("rnn")
    assert gradient_reach(net, {"input_ids": tokens(2, 1)}) is None
    assert gradient_reach(net, {"input_ids": tokens(2, 5)[0]}) is None
    assert gradient_reach(net, {}) is None
    with torch.no_grad():
        for p in net.model.layers.parameters():
            p.zero_()
    assert gradient_reach(net, {"input_ids": tokens(2, 5)}) is None


def test_a_recurrent_language_models_run_records_its_reach(tmp_path: Path) -> None:
    class Tokens:
        def batch(self, numbers: Any) -> dict[str, torch.Tensor]:
            ids = tokens(len(numbers), 24)
            return {"input_ids": ids[:, :-1], "labels": ids[:, 1:]}

    net = recurrent("rnn").train()
    toy_run(tmp_path, toy_settings(4, vital_signs_every=2), net=net, objective=NextToken(), batches=Tokens())  # type: ignore[arg-type]
    found = signs_in(tmp_path)
    assert list(found) == [1, 2, 4]
    assert set(found[4]["layers"]) == {"embed_tokens", "layers.0", "lm_head"}
    reach = found[4]["gradient_reach"]
    assert reach["longest"] == 22
    assert reach["curve"][0] == [0, 1.0]
    assert 1 <= reach["steps"] <= 22
