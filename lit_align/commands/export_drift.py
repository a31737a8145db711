"""What a trained model answers, and how far an exported one agrees with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lit_align.commands.trained_model import TrainedModel
from lit_align.evals.agreement import Agreement, agreement, token_agreement
from lit_align.evals.generate import SECONDS_BEFORE_PROGRESS, Completion, generate
from lit_align.evals.no_trace import evaluating
from lit_align.forest import TokenForest, TokenPath
from lit_align.models.loading import LoRA
from lit_align.models.policy import Policy
from lit_align.models.reference import only_adapters
from lit_align.ops.frozen_head import FrozenHead
from lit_align.ops.head_products import head_logits

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ROWS = 64  # of logits at once: 40 MB each time for Qwen3's vocabulary


@dataclass(frozen=True)
class Asked:
    """What is answered, and how.

    Attributes:
        prompts: Token ids of each prompt.
        max_new_tokens: Cap on the length of an answer in tokens.
        stop_ids: Tokens that end an answer.
        batch_size: Prompts at once.
        device: Where the models run.
    """

    prompts: Sequence[tuple[int, ...]]
    max_new_tokens: int
    stop_ids: Sequence[int]
    batch_size: int
    device: torch.device

    def answers(self, model: Any, progress: str) -> list[Completion]:
        """What a causal language model of transformers answers greedily."""
        return generate(
            model,
            self.prompts,
            max_new_tokens=self.max_new_tokens,
            stop_ids=self.stop_ids,
            batch_size=self.batch_size,
            progress=progress,
        )


@dataclass(frozen=True, eq=False)
class TrainedAnswers:
    """A trained model's greedy answers, and all that is needed of it to compare another one with it.

    Attributes:
        asked: What was asked.
        answers: Its answers.
        hidden: Of each answer the last hidden states from which its tokens are read, and what follows the last one,
            ``(tokens + 1, H)``.
        head: Its output head.
        fingerprint: Hash of the weights of the base.
        noise: How far it agrees with itself where answers are computed in batches.
    """

    asked: Asked
    answers: list[Completion]
    hidden: list[Tensor]
    head: FrozenHead
    fingerprint: str
    noise: Agreement

    @torch.no_grad()
    def compare(self, model: PreTrainedModel) -> Agreement:
        """How far a model agrees with the trained one.

        Both are read through their output heads in fp32, as training does; transformers itself rounds the logits of a
        bf16 model.

        Args:
            model: As transformers opens it; it is moved to the device.
        """
        opened: Any = model.to(self.asked.device)  # type: ignore[arg-type]
        linear = opened.get_output_embeddings()
        head = FrozenHead(linear.weight.detach(), None if linear.bias is None else linear.bias.detach())
        found = []
        with evaluating(opened):
            pairs = zip(self.asked.prompts, self.answers, self.hidden, strict=True)
            bar = tqdm(pairs, "comparing", len(self.answers), delay=SECONDS_BEFORE_PROGRESS, leave=False, unit="answer")
            for prompt, answer, trained in bar:
                tokens = torch.tensor([[*prompt, *answer.tokens]], device=self.asked.device)
                states = opened.get_decoder()(
                    input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False
                ).last_hidden_state[0, len(prompt) - 1 :]
                found.append(_agreement(trained, self.head, states, head))
        written = self.asked.answers(opened, "its own answers")
        return agreement(found, [one == other for one, other in zip(self.answers, written, strict=True)])


def trained_answers(trained: TrainedModel, asked: Asked) -> TrainedAnswers:
    """Have a trained model answer as it did in its run; nothing but the result stays in memory.

    Args:
        trained: The model, checked.
        asked: The prompts.
    """
    policy = Policy(trained.base, trained.weights, LoRA(rank=1), "padded")
    names = [f"adapter{number}" for number in range(len(trained.folders))]
    for name, folder in zip(names, trained.folders, strict=True):
        folder.add_to(policy.peft, name)
    policy.to(asked.device)
    with only_adapters(policy, names), _as_in_the_run(policy, trained):
        answers = asked.answers(policy.causal_lm, "the trained model's answers")
        texts = [(prompt, one.tokens) for prompt, one in zip(asked.prompts, answers, strict=True)]
        bar = tqdm(total=2 * len(texts), desc="reading them", delay=SECONDS_BEFORE_PROGRESS, leave=False, unit="answer")
        with bar:
            hidden = [states for text in texts for states in _states(policy, [text], bar)]
            batches = (texts[start : start + asked.batch_size] for start in range(0, len(texts), asked.batch_size))
            together = [states for batch in batches for states in _states(policy, batch, bar)]
    head = FrozenHead(policy.head.weight.detach(), policy.head.bias)
    noise = [_agreement(one, head, other, head) for one, other in zip(hidden, together, strict=True)]
    return TrainedAnswers(asked, answers, hidden, head, policy.base_fingerprint, agreement(noise, None))


@contextmanager
def _as_in_the_run(policy: Policy, trained: TrainedModel) -> Iterator[None]:
    with torch.autocast(policy.device.type, torch.bfloat16, enabled=trained.precision == "bf16-mixed"):
        yield


def _states(policy: Policy, texts: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], bar: Any) -> list[Tensor]:
    """Last hidden states before each token of some answers, and behind the last one."""
    paths = [
        TokenPath(np.array([*prompt, *answer], np.int32), np.zeros(len(prompt) + len(answer), np.uint8), str(number))
        for number, (prompt, answer) in enumerate(texts)
    ]
    forest = TokenForest.build([[path] for path in paths]).to(policy.device)
    hidden = policy.hidden(forest)
    found = []
    for last, (prompt, _) in zip(forest.last_rows, texts, strict=True):
        rows = [row for part in forest.path_rows(last) for row in part]
        found.append(hidden[rows[len(prompt) - 1 :]].clone())
    bar.update(len(texts))
    return found


@torch.no_grad()
def _agreement(trained: Tensor, trained_head: FrozenHead, other: Tensor, head: FrozenHead) -> Tensor:
    parts = zip(torch.split(trained, _ROWS), torch.split(other, _ROWS), strict=True)
    return torch.cat(
        [
            token_agreement(
                head_logits(one, trained_head.weight, trained_head.bias), head_logits(two, head.weight, head.bias)
            )
            for one, two in parts
        ]
    )
