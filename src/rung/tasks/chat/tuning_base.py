"""A chat model as what is tuned: the network, its checkpoints, and what is the same whatever it learns from."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from rung.nets.adapters import load_adapter
from rung.nets.decoder import CausalLM
from rung.nets.language_models import load_language_model
from rung.tasks.chat.folder import save_chat_model
from rung.tasks.chat.preparation import ChatBase
from rung.tasks.chat.tuning_recipe import AnyChatRecipe, ChatRecipe
from rung.tasks.classification.network_training import device
from rung.tasks.run import Run
from rung.tasks.tuning.frame import Job, Session
from rung.tasks.tuning.method import apply_method
from rung.tasks.tuning.stepping import compute_dtype, loop_settings, optimizer_of
from rung.tasks.tuning.tuner import AnyTuned, Tuning
from rung.training.contracts import Batches, Objective, Validation
from rung.training.distributed import alone
from rung.training.validation import mean_loss


def tuned_network(base: ChatBase, recipe: ChatRecipe) -> CausalLM:
    """The base as `recipe` tunes it, before any step: what moves is trainable, new tokens have rows."""
    net = base_network(base, recipe)
    apply_method(net, recipe.tuning, seed=recipe.seed)
    return net


def base_network(base: ChatBase, recipe: ChatRecipe) -> CausalLM:
    """The base as it is, in the dtype to compute in and where it shall compute."""
    net = base.network()
    net.compute_dtype = compute_dtype(recipe)
    return net.to(device())


class ChatModelTuning(Tuning[AnyChatRecipe, AnyTuned]):
    """What all tuning of chat models shares."""

    def __init__(self, recipe: AnyChatRecipe, session: Session, base: ChatBase) -> None:
        """Take the base that `recipe` names."""
        super().__init__(recipe, session)
        self.base = base

    @cached_property
    def net(self) -> CausalLM:
        """The network that is trained, by a recipe without gaps."""
        return tuned_network(self.base, self.recipe)

    def untuned(self) -> CausalLM:
        """The base, to be compared with."""
        return base_network(self.base, self.recipe).eval()

    def job_of(self, run: Run, objective: Objective, batches: Batches, validate: Callable[[], Validation]) -> Job:
        """The network trained by `objective` on `batches`."""
        return Job(
            net=self.net,
            objective=objective,
            batches=batches,
            optimizer=optimizer_of(self.net, self.recipe),
            settings=loop_settings(self.recipe),
            save=lambda folder: self._save(run, folder),
            load=self._load,
            validate=validate,
        )

    def losses(self, objective: Objective, held_out: Batches, samples: int) -> dict[str, float]:
        """The means of `objective` and its metrics over `samples` held-out samples."""
        at_once, world = self.recipe.training.rows_at_once, alone(next(self.net.parameters()).device)
        return mean_loss(self.net, objective, held_out, samples=samples, batch_size=at_once, world=world)

    def _save(self, run: Run, folder: Path) -> None:
        save_chat_model(self.net, self.base, folder, method=self.recipe.tuning, record=run.header["parent"])

    def _load(self, folder: Path) -> None:
        """Give the network the weights of a checkpoint."""
        if self.recipe.tuning.kind == "lora":
            load_adapter(self.net, folder)
        else:
            self.net.load_state_dict(load_language_model(folder).state_dict())
