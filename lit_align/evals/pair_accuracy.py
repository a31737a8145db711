"""Which of two answers a model finds likelier, and how far it has moved from its reference."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from lit_align.data.chat import ChatFormat
from lit_align.data.lengths import Lengths, prompt_size
from lit_align.data.mixture import group_of
from lit_align.data.pair_tokenising import PairTokenising
from lit_align.data.tokenising import BadRows
from lit_align.data.windows import Tree
from lit_align.evals.benchmark import SHARE, Benchmark, Bounds, ItemResult
from lit_align.evals.dealing import dealt
from lit_align.evals.held_out import held_out
from lit_align.evals.no_trace import evaluating
from lit_align.forest import TokenForest, TokenPath
from lit_align.losses.anchor import ReverseKL
from lit_align.models.policy import Policy
from lit_align.models.reference import BaseReference, Reference
from lit_align.ops.frozen_head import score_tokens, token_logps
from lit_align.types import PairSource, PreferencePair, SamplePrompt


@dataclass(frozen=True)
class PairAccuracyBenchmark(Benchmark):
    r"""Teacher-forced log-probs of preference pairs that training holds out.

    With :math:`\log \pi(y)` the log-prob of a whole answer, end-of-turn token included, in nats, the measures are

    * ``accuracy``: 1 if :math:`\log \pi(y_w) > \log \pi(y_l)`, one half at a tie. The policy alone: it is above or
      below one half before training too, and longer answers have lower log-probs.
    * ``rewards/accuracies``: the same of :math:`\log \pi(y) - \log \pi_{ref}(y)`, DPO's implicit reward; one half for
      the reference itself.
    * ``displacement/chosen``: 1 if :math:`\log \pi(y_w) < \log \pi_{ref}(y_w)`, the chosen answer became less likely.
    * ``logps/chosen``, ``logps/rejected``: :math:`\log \pi`; the difference of the former before and after is the
      displacement in nats.
    * ``kl``: the exact KL(policy ‖ reference) over the whole vocabulary, nats, mean over the chosen answer's tokens.

    Pairs are rendered, held to limits and put into token forests as for training; those of a group share their tree,
    and are one cluster. ``skill`` is the source of the pair; ``answer`` is the likelier one of the two, ``gold`` the
    chosen one.

    Args:
        source: Where the pairs come from.
        val_fraction: Share of the groups that are held out, in (0, 1]: ``data.val_fraction``; 1 takes all pairs of a
            source that training does not see.
        split_seed: ``data.split_seed``.
        limit: Pairs, at least 1, taken as whole groups at random; a few more where the last group holds them. Null
            takes all that are held out.
        name: Names the benchmark in tables, files and log keys.
        lengths: As ``data.lengths``; a pair of which one answer is dropped is dropped, and the log counts it.
        token_budget: As ``data.token_budget``: most tokens of a forest, > 0.
        bad_rows: As ``data.bad_rows``.
        reference: As ``model.reference``; the bare base by default. One that moves is measured as it is then.

    Raises:
        ValueError: A value is out of its range; on use, ``reference`` names an adapter that the run does not hold.

    Example:
        >>> class Two(PairSource):
        ...     def pairs(self, keep):
        ...         return [PreferencePair((), "yes", "no", f"q{i}", "two", f"table {i}") for i in range(2)]
        >>> PairAccuracyBenchmark(Two(), val_fraction=1.0).conditions()["n"]
        2
    """

    measures: ClassVar[Mapping[str, Bounds]] = {
        "accuracy": SHARE,
        "rewards/accuracies": SHARE,
        "displacement/chosen": SHARE,
        "logps/chosen": (-math.inf, 0.0),
        "logps/rejected": (-math.inf, 0.0),
        "kl": (0.0, math.inf),
    }

    source: PairSource
    val_fraction: float
    split_seed: int = 0
    limit: int | None = None
    name: str = "pairs"
    lengths: Lengths = Lengths()
    token_budget: int = 8192
    bad_rows: BadRows = "stop"
    reference: Reference = BaseReference()

    def __post_init__(self) -> None:
        for option, holds, rule in (
            ("name", bool(self.name), "not be empty"),
            ("val_fraction", 0 < self.val_fraction <= 1, "be in (0, 1]"),
            ("limit", self.limit is None or self.limit >= 1, "be at least 1 or null"),
            ("token_budget", self.token_budget > 0, "be > 0"),
        ):
            if not holds:
                raise ValueError(f"PairAccuracyBenchmark: {option} must {rule}, got {getattr(self, option)!r}")

    def conditions(self) -> dict[str, str | int]:
        """Fingerprint of the pairs, number of pairs, and what may drop one."""
        text = json.dumps([asdict(pair) for pair in self._pairs.values()], ensure_ascii=False)
        return {
            "items": hashlib.sha256(text.encode()).hexdigest()[:16],
            "n": len(self._pairs),
            "lengths": str(self.lengths),
            "bad_rows": self.bad_rows,
            "reference": self.reference.identity(),
        }

    def groups(self) -> frozenset[str]:
        """See :meth:`Benchmark.groups`."""
        return frozenset(group_of(pair) for pair in self._pairs.values())

    def asked(self) -> list[SamplePrompt]:
        """See :meth:`Benchmark.asked`."""
        return [SamplePrompt(one.id, one.prompt, one.chosen, one.source, one.group) for one in self._pairs.values()]

    @torch.no_grad()
    def run(self, policy: Policy, chat: ChatFormat, *, progress: str | None = None) -> list[ItemResult]:
        """Score every pair; see :meth:`Benchmark.run`."""
        # No group is parted but by the budget: a window has no meaning here.
        most = len(self._pairs)
        tokenising = PairTokenising(chat, self.lengths, most, self.token_budget, self.bad_rows, self.name)
        trees = tokenising.trees(self._pairs.values())

        def measured(tree: Tree, forest: TokenForest) -> list[ItemResult]:
            scores = pair_scores(policy, forest, self.reference)
            return [
                self._result(path, {name: float(values[n]) for name, values in scores.items()}, chat)
                for n, path in enumerate(tree.paths[::2])
            ]

        return dealt(policy, trees, measured, progress)

    def _result(self, path: TokenPath, scores: dict[str, float], chat: ChatFormat) -> ItemResult:
        pair = self._pairs[path.example.removesuffix(" chosen")]
        prompt = path.tokens[: prompt_size(path)].tolist()
        return ItemResult(
            id=pair.id,
            cluster=group_of(pair),
            skill=pair.source,
            prompt=str(chat.tokenizer.decode(prompt, skip_special_tokens=False)),
            answer=pair.chosen if scores["accuracy"] >= 0.5 else pair.rejected,
            gold=pair.chosen,
            scores=scores,
            hit_cap=None,
            new_tokens=0,
        )

    @cached_property
    def _pairs(self) -> dict[str, PreferencePair]:
        """The pairs by id, read once, so that before and after are the same ones."""
        return held_out(
            self.source.usable,
            val_fraction=self.val_fraction,
            split_seed=self.split_seed,
            limit=self.limit,
            bad_rows=self.bad_rows,
            what="pair",
            benchmark=self.name,
        )


@torch.no_grad()
def pair_scores(policy: Policy, forest: TokenForest, reference: Reference) -> dict[str, Tensor]:
    """The measures of :class:`PairAccuracyBenchmark` for each pair of a forest, float64, ``(P,)``.

    Args:
        policy: The policy, in whatever mode; it is measured in evaluation mode.
        forest: Examples in twos, the chosen and the rejected answer; on the policy's device.
        reference: What the policy is compared with.
    """
    with evaluating(policy):
        hidden = policy.hidden(forest, forest.pair_rows)
    with reference.active(policy):
        compared = policy.hidden(forest, forest.pair_rows)
    own = score_tokens(hidden, policy.head, forest.pair_tokens, reference_hidden=compared, divergences=[ReverseKL()])
    reference_logps = token_logps(compared, policy.head, forest.pair_tokens)

    def by_answer(values: Tensor) -> Tensor:
        """Sums over the tokens of each answer, ``(P, 2)``: chosen, rejected."""
        sums = values.new_zeros(len(forest.examples), dtype=torch.float64)
        return sums.index_add(0, forest.target_examples, values[forest.target_pairs].double()).reshape(-1, 2)

    logps = by_answer(own.logps)
    # Token by token first: the sums of a long answer are large and their difference may be small.
    log_ratios = by_answer(own.logps.double() - reference_logps.double())
    lengths = by_answer(torch.ones_like(own.logps))
    return {
        "accuracy": _first_is_larger(logps),
        "rewards/accuracies": _first_is_larger(log_ratios),
        "displacement/chosen": (log_ratios[:, 0] < 0).double(),
        "logps/chosen": logps[:, 0],
        "logps/rejected": logps[:, 1],
        "kl": (by_answer(own.divergences[0]) / lengths)[:, 0],
    }


def _first_is_larger(values: Tensor) -> Tensor:
    """1, one half at a tie, or 0 for each row."""
    return ((values[:, 0] > values[:, 1]).double() + (values[:, 0] >= values[:, 1]).double()) / 2
