"""From a chat model and files of problems to what is learned from, chosen by and tested on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rung.data.checkable import Problems, read_problems, split_problems
from rung.progress import Progress
from rung.tasks.chat.preparation import ChatBase, dated, open_base, require_learnable
from rung.tasks.chat.reward_recipe import RewardRecipe


@dataclass(frozen=True)
class PreparedProblems:
    """The base, and problems to learn from, to choose by and to test on."""

    base: ChatBase
    train: Problems
    valid: Problems
    test: Problems

    @property
    def sha256(self) -> str:
        """The identity of what is learned and measured."""
        parts = (self.train.sha256, self.valid.sha256, self.test.sha256, self.base.tokenizer.sha256)
        return "+".join(part[:16] for part in parts)

    def facts(self) -> dict[str, Any]:
        """What the data come to."""
        parts = {part: getattr(self, part) for part in ("train", "valid", "test")}
        remarks = dict.fromkeys(remark for problems in parts.values() for remark in problems.remarks)
        return {f"{part}_problems": len(problems) for part, problems in parts.items()} | {"remarks": list(remarks)}


def prepare_problems(recipe: RewardRecipe, progress: Progress) -> tuple[RewardRecipe, PreparedProblems]:
    """Read and split; and the recipe with the date it was done with. A prompt is never in two parts."""
    data = recipe.data
    recipe, base = dated(recipe, open_base(recipe.base, template=data.template))
    require_learnable(base, recipe.tuning)
    train = read_problems(data.files, progress=progress)
    if data.test:
        test = read_problems(data.test, progress=progress)
    else:
        train, test = split_problems(train, share=data.test_share, seed=recipe.seed)
    if data.valid:
        valid = read_problems(data.valid, progress=progress)
    else:
        train, valid = split_problems(train, share=data.valid_share, seed=recipe.seed)
    held_out = {one.prompt for one in (*valid.items, *test.items)}
    kept = np.array([row for row, one in enumerate(train.items) if one.prompt not in held_out], dtype=np.int64)
    return recipe, PreparedProblems(base, train.take(kept), valid, test)
