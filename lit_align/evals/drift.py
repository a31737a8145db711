"""How far a model has moved from its base on texts that it should not have forgotten."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from lit_align.data.chat import ChatFormat, Turns
from lit_align.data.lengths import Lengths, prompt_size
from lit_align.data.mixture import group_of
from lit_align.data.tokenising import BadRows, Tokenising
from lit_align.data.windows import Tree, joined, within
from lit_align.evals.benchmark import Benchmark, Bounds, ItemResult
from lit_align.evals.dealing import dealt
from lit_align.evals.held_out import held_out, kept_conversations
from lit_align.evals.no_trace import evaluating
from lit_align.forest import TokenForest
from lit_align.losses.anchor import ForwardKL, ReverseKL
from lit_align.models.policy import Policy
from lit_align.models.reference import BaseReference, Reference
from lit_align.ops.frozen_head import score_tokens
from lit_align.types import Conversation, ConversationSource

Sums = tuple[float, ...]


@dataclass(frozen=True)
class DriftBenchmark(Benchmark):
    r"""The forgetting side of a fine-tuning: likelihood of given answers, and exact divergence from the base.

    Nothing is generated: each answer is given to the model (teacher forcing), end-of-turn token included, and each
    measure is the mean over the answer tokens of a conversation, nats:

    * ``nll``: :math:`-\log \pi(y_t)`.
    * ``kl_policy_base``: :math:`KL(\pi \,\|\, \pi_{ref})` over the whole vocabulary, large where the policy does what
      the base would not (:class:`~lit_align.losses.anchor.ReverseKL`).
    * ``kl_base_policy``: :math:`KL(\pi_{ref} \,\|\, \pi)`, large where the policy has lost what the base would do
      (:class:`~lit_align.losses.anchor.ForwardKL`).

    Both divergences are exactly 0 for the reference itself, so for an untrained adapter. They come from one pass over
    the head, chunk by chunk; logits of a whole text are never held.

    Conversations are rendered, held to limits and put into token forests as for training; those of a group share their
    tree, and are one cluster. ``skill`` is the domain. A mean in a table is over conversations, each counting the same
    however long its answers are; the means that validation logs are over tokens. The files show the prompt and the text
    of a conversation's last measured answer.

    Args:
        domains: Where the conversations of each domain come from, by its name. All that a source can use is measured,
            not what it would draw of it for training (``sample_ratio`` and the like); see ``limit``.
        val_fraction: Share of the groups that are held out, in (0, 1]: ``data.val_fraction``; 1 takes all
            conversations of sources that training does not see. Domains of both kinds need a benchmark each.
        split_seed: ``data.split_seed``.
        limit: Conversations of each domain, at least 1, taken as whole groups at random, before ``lengths`` drops any;
            a few more where the last group holds them. Null takes all that are held out.
        name: Names the benchmark in tables, files and log keys.
        lengths: As ``data.lengths``; the log counts what is cut or dropped.
        token_budget: As ``data.token_budget``: most tokens of a forest, > 0.
        turns: As ``data.turns``: measure ``all`` assistant turns or the ``last`` one of each conversation.
        bad_rows: As ``data.bad_rows``.
        reference: What the policy is compared with; the bare base by default, whatever ``model.reference`` is.

    Raises:
        ValueError: A value is out of its range; on use, ``reference`` names an adapter that the run does not hold.

    Example:
        >>> from lit_align.data.sources.table_skills import TableSkills
        >>> talk = TableSkills(skills=["chat"], n=20)
        >>> DriftBenchmark({"small talk": talk}, val_fraction=1.0).conditions()["n"]
        20
    """

    measures: ClassVar[Mapping[str, Bounds]] = {
        "nll": (0.0, math.inf),
        "kl_policy_base": (0.0, math.inf),
        "kl_base_policy": (0.0, math.inf),
    }

    domains: dict[str, ConversationSource]
    val_fraction: float
    split_seed: int = 0
    limit: int | None = None
    name: str = "drift"
    lengths: Lengths = Lengths()
    token_budget: int = 8192
    turns: Turns = "all"
    bad_rows: BadRows = "stop"
    reference: Reference = BaseReference()

    def __post_init__(self) -> None:
        for option, holds, rule in (
            ("name", bool(self.name), "not be empty"),
            ("domains", bool(self.domains) and all(self.domains), "name at least one domain, none by an empty text"),
            ("val_fraction", 0 < self.val_fraction <= 1, "be in (0, 1]"),
            ("limit", self.limit is None or self.limit >= 1, "be at least 1 or null"),
            ("token_budget", self.token_budget > 0, "be > 0"),
        ):
            if not holds:
                raise ValueError(f"DriftBenchmark: {option} must {rule}, got {getattr(self, option)!r}")

    def conditions(self) -> dict[str, str | int]:
        """Fingerprint of the conversations, their number, and what may drop, cut or leave out one."""
        items = [[domain, asdict(one)] for domain, read in self._conversations.items() for one in read.values()]
        return {
            "items": hashlib.sha256(json.dumps(items, ensure_ascii=False).encode()).hexdigest()[:16],
            "n": len(items),
            "lengths": str(self.lengths),
            "turns": self.turns,
            "bad_rows": self.bad_rows,
            "reference": self.reference.identity(),
        }

    def groups(self) -> frozenset[str]:
        """See :meth:`Benchmark.groups`."""
        return frozenset(group_of(one) for read in self._conversations.values() for one in read.values())

    @torch.no_grad()
    def run(self, policy: Policy, chat: ChatFormat, *, progress: str | None = None) -> list[ItemResult]:
        """Measure every conversation; see :meth:`Benchmark.run`."""
        trees = {domain: self._trees(domain, chat) for domain in self.domains}
        # The turns of a conversation may be in several forests, of several ranks: sums are added up once they are back.
        parts = [part for found in trees.values() for tree in joined(found) for part in within(tree, self.token_budget)]
        sums = iter(
            dealt(policy, parts, lambda _, forest: drift_sums(policy, forest, self.reference).tolist(), progress)
        )
        by_path = {id(path): next(sums) for part in parts for path in part.paths}
        return [
            self._result(domain, tree, [by_path[id(path)] for path in tree.paths], chat)
            for domain, found in trees.items()
            for tree in found
        ]

    def _trees(self, domain: str, chat: ChatFormat) -> list[Tree]:
        part = f"{self.name}, {domain}"
        tokenising = Tokenising(chat, self.lengths, self.turns, self.token_budget, 1.0, self.bad_rows, part)
        return tokenising.trees(self._conversations[domain].values())

    def _result(self, domain: str, tree: Tree, sums: list[Sums], chat: ChatFormat) -> ItemResult:
        conversation = self._conversations[domain][tree.name]
        tokens, *totals = np.sum(sums, axis=0)
        last = tree.paths[-1]
        prompt, answer = np.split(last.tokens, [prompt_size(last)])
        return ItemResult(
            id=f"{domain}/{conversation.id}",
            cluster=group_of(conversation),
            skill=domain,
            prompt=str(chat.tokenizer.decode(prompt.tolist(), skip_special_tokens=False)),
            answer="",
            gold=str(chat.tokenizer.decode(answer.tolist(), skip_special_tokens=True)),
            scores=dict(zip(self.measures, (total / tokens for total in totals), strict=True)),
            hit_cap=None,
            new_tokens=0,
        )

    @cached_property
    def _conversations(self) -> dict[str, dict[str, Conversation]]:
        """The conversations of each domain by id, read once, so that before and after are the same ones."""
        return {
            domain: held_out(
                partial(kept_conversations, source),
                val_fraction=self.val_fraction,
                split_seed=self.split_seed,
                limit=self.limit,
                bad_rows=self.bad_rows,
                what="conversation",
                benchmark=f"{self.name}, {domain}",
            )
            for domain, source in self.domains.items()
        }


@torch.no_grad()
def drift_sums(policy: Policy, forest: TokenForest, reference: Reference) -> Tensor:
    """For each example of a forest its answer tokens and the sums over them, float64, ``(E, 4)``.

    Args:
        policy: The policy, in whatever mode; it is measured in evaluation mode.
        forest: On the policy's device.
        reference: What the policy is compared with.

    Returns:
        Number of tokens; NLL, KL(policy ‖ reference) and KL(reference ‖ policy), nats.
    """
    with evaluating(policy):
        hidden = policy.hidden(forest, forest.pair_rows)
    with reference.active(policy):
        compared = policy.hidden(forest, forest.pair_rows)
    scores = score_tokens(
        hidden,
        policy.head,
        forest.pair_tokens,
        reference_hidden=compared,
        divergences=[ReverseKL(), ForwardKL()],
    )
    columns = [torch.ones_like(scores.logps), -scores.logps, *scores.divergences]
    values = torch.stack(columns, dim=1).double()[forest.target_pairs]
    sums = values.new_zeros(len(forest.examples), len(columns))
    return sums.index_add(0, forest.target_examples, values)
