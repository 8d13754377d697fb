"""Label log-probabilities and answers from a local generative folder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from rung.errors import RunFolderError
from rung.generation.options import SamplingOptions
from rung.nets.decoder import CausalLM
from rung.nets.gpt2 import GPT2LM
from rung.tasks.bases import weights_sha256
from rung.tasks.language_model import load
from rung.tasks.prompting.branching import BranchScorer
from rung.tasks.prompting.endpoint import Failed
from rung.tasks.prompting.judging import LabelScores
from rung.tasks.prompting.templates import Prompt

if TYPE_CHECKING:
    from rung.data.chat_template import ChatTemplate


class LocalModel:
    """A decoder that scores labels, or writes them. What the questions of a prompt share is read once.

    A plain prompt begins with the end-of-text token, as documents do in training; its prefix, question and label are
    tokenised each by itself: they meet at a line end and before a space, where the usual pre-tokenizers cut anyway.
    With `chat` the prompt is the conversation that the folder's chat template makes of it, and the label is what the
    assistant begins with.
    """

    def __init__(self, folder: Path, *, chat: bool = False, bf16: bool = False) -> None:
        """Load a run folder, a checkpoint or a Hugging Face folder; `bf16`: compute in bfloat16 instead of float32.

        Raises RunFolderError when there is no decoder in it, TokenizerError when `chat` finds no chat template.
        """
        self._model = load(folder)
        net = self._model.net
        if not isinstance(net, CausalLM | GPT2LM):
            raise RunFolderError(
                "only a decoder is asked by prompts: other language models have no context to put examples into",
                where=str(folder),
                hint="name the folder of a decoder",
            )
        self._net = net.eval()
        self._net.compute_dtype = torch.bfloat16 if bf16 else torch.float32
        self._tokenizer = self._model.tokenizer
        self._template: ChatTemplate | None = None
        if chat:
            from rung.data.chat_template import ChatTemplate

            self._template = ChatTemplate.load(self._model.folder)
        self._scorer = BranchScorer(self._net)
        self.num_parameters = sum(parameter.numel() for parameter in self._net.parameters())

    @property
    def folder(self) -> Path:
        """Where the weights lie: a checkpoint's folder where a run's was given."""
        return self._model.folder

    @cached_property
    def sha256(self) -> str:
        """Hash of the weights."""
        return weights_sha256(self.folder)

    @property
    def context_length(self) -> int:
        """Tokens that prompt and label may have together."""
        return self._net.config.max_position_embeddings

    def prompt_tokens(self, prompt: Prompt, text: str) -> list[int]:
        """All that the model reads before the label."""
        if self._template is None:
            before = [self._tokenizer.start_token_id, *self._tokenizer.encode(prompt.prefix)]
            return before + self._tokenizer.encode(prompt.question(text))
        from rung.data.conversations import Message

        turns = [Message(role, said) for role, said in prompt.conversation(text)]
        return self._template.render_prompt(turns, self._tokenizer)

    def label_tokens(self, prompt: Prompt) -> list[list[int]]:
        """Each label as it would follow the prompt."""
        space = " " if self._template is None else ""
        return [self._tokenizer.encode(f"{space}{name}") for name in prompt.label_names]

    def fits(self, prompt: Prompt, text: str) -> bool:
        """Whether prompt, text and the longest label fit the context together."""
        longest = max(map(len, self.label_tokens(prompt)))
        return len(self.prompt_tokens(prompt, text)) + longest <= self.context_length

    def label_logprobs(self, prompt: Prompt, texts: Sequence[str]) -> list[LabelScores | Failed]:
        """ln P of each token of each label after the prompt around each text; Failed where that passes the context."""
        labels = self.label_tokens(prompt)
        asked, found = self._asked(prompt, texts, room=max(map(len, labels)))
        scored = self._scorer.score(list(asked.values()), labels)
        return [found.get(row) or scored.pop(0) for row in range(len(texts))]

    def write(
        self, prompt: Prompt, texts: Sequence[str], *, samples: int, temperature: float, max_tokens: int
    ) -> list[list[str] | Failed]:
        """What the model writes after the prompt around each text, up to the end of the line or its turn.

        `samples` answers a text, with seeds 0, 1, 2 ...; Failed where nothing can follow within the context.
        """
        asked, found = self._asked(prompt, texts, room=1)
        prompts = [tokens for tokens in asked.values() for _ in range(samples)]
        stop = ("\n",) if self._template is None else ()
        options = [
            SamplingOptions(temperature=temperature, max_tokens=max_tokens, seed=seed, stop=stop)
            for _ in asked
            for seed in range(samples)
        ]
        written = [generation.text for generation in self._model.engine.generate(prompts, options)] if prompts else []
        answers = iter([written[start : start + samples] for start in range(0, len(written), samples)])
        return [found.get(row) or next(answers) for row in range(len(texts))]

    def _asked(
        self, prompt: Prompt, texts: Sequence[str], *, room: int
    ) -> tuple[dict[int, list[int]], dict[int, Failed]]:
        """The tokens of each prompt by the number of its text, or why it has no place for `room` tokens after it."""
        asked, failed = {}, {}
        for row, text in enumerate(texts):
            tokens = self.prompt_tokens(prompt, text)
            total = len(tokens) + room
            if total > self.context_length:
                problem = f"{total:,} tokens with its prompt do not fit the context of {self.context_length:,}"
                failed[row] = Failed(problem)
            else:
                asked[row] = tokens
        return asked, failed
