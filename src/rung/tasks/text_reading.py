"""How a network reads text while it learns: a decoder windows in random order, one that remembers lanes without end."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from rung.data.lanes import LaneTokens
from rung.data.mixture import replayed_lanes, replayed_windows
from rung.data.pack import PackedTokens
from rung.data.shards import TokenShards
from rung.nets.body import carries_state
from rung.nets.language_models import Net
from rung.objectives.carried_next_token import CarriedNextToken
from rung.objectives.next_token import NextToken
from rung.recipe import Recipe
from rung.tasks.text_preparation import PreparedText
from rung.training.contracts import Batches, Objective, Validation
from rung.training.distributed import World
from rung.training.validation import mean_loss


@dataclass(frozen=True)
class Replay:
    """Older texts, and the share of all rows that they are read in."""

    texts: Sequence[TokenShards]
    share: Fraction


class TextReading:
    """The batches and the objective of `net`, and its validation on held-out text.

    Both count every token of the text once a reading, with end-of-text tokens between documents, whatever the family.
    """

    objective: Objective
    batches: Batches

    def __init__(
        self,
        net: Net,
        recipe: Recipe,
        text: PreparedText,
        world: World,
        *,
        validation_tokens: int,
        replay: Replay | None = None,
        watched: Mapping[str, Callable[[], float]] | None = None,
    ) -> None:
        """`recipe` has no gaps; each validation reads about `validation_tokens` tokens, or all there are.

        `replay`: older text to read among the new. `watched`: figures to log with each validation.
        """
        training, window = recipe.training, net.config.window
        self._net, self._world, self._valid = net, world, text.valid
        self._wanted = math.ceil(validation_tokens / window)
        self._micro_batch_size, self._lanes = training.micro_batch_size or 1, training.batch_size or 1
        share = self._lanes // world.size
        self._remembers = carries_state(net)
        self._watched = watched or {}
        self._held_out: Any
        if self._remembers:
            self.objective = CarriedNextToken(self._lanes, range(world.rank * share, (world.rank + 1) * share))
            self.batches = LaneTokens(text.train, lanes=self._lanes, length=window, seed=recipe.seed)
            if replay is not None:
                self.batches = replayed_lanes(
                    text.train, replay.texts, replay.share, lanes=self._lanes, length=window, seed=recipe.seed
                )
            self._held_out = LaneTokens(text.valid, lanes=self._lanes, length=window, seed=0)
        else:
            self.objective = NextToken()
            self.batches = PackedTokens(text.train, context_length=window, seed=recipe.seed)
            if replay is not None:
                self.batches = replayed_windows(
                    text.train, replay.texts, replay.share, context_length=window, seed=recipe.seed
                )
            self._held_out = PackedTokens(text.valid, context_length=window, seed=0)

    def validate(self) -> Validation:
        """The mean loss on held-out text, by all ranks together."""
        # Each rank reads lanes of its own, from their beginning: the same lanes however many ranks there are.
        objective = CarriedNextToken(self._lanes, while_training=False) if self._remembers else self.objective
        lanes = self._lanes if self._remembers else 1
        size = self._lanes // self._world.size if self._remembers else self._micro_batch_size
        samples = lanes * min(self._held_out.num_windows, math.ceil(self._wanted / lanes))
        found = mean_loss(self._net, objective, self._held_out, samples=samples, batch_size=size, world=self._world)
        loss = found["loss"]
        watched = {name: figure() for name, figure in self._watched.items()}
        return Validation(loss, {"bits_per_byte": loss / math.log(2) / self._valid.bytes_per_token, **watched})
