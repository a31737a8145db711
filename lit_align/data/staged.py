"""Preference pairs of several stages, one after another, to windows."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from lit_align.data.lengths import Lengths
from lit_align.data.mix import Mix
from lit_align.data.packing import GroupPlan, Plan
from lit_align.data.preference import PreferenceDataModule, pair_counts
from lit_align.data.tokenising import BadRows
from lit_align.data.trees import StagedTrees
from lit_align.data.window_module import PlannedDataModule, refuse_mixture
from lit_align.seeds import seed_of
from lit_align.types import ConversationSource, PairSource

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StagePairs:
    """What one stage trains on, and for how long; give one of ``windows``, ``pairs`` and ``epochs``.

    Attributes:
        name: That of the stage in ``StageTransition``.
        sources: Where its pairs come from.
        mix: True shares of its sources, see :class:`~lit_align.data.mix.Mix`; null trains all of each.
        windows: Its optimizer steps, > 0.
        pairs: As many windows as hold so many pairs, to the nearest window, > 0. More than the sources have go through
            them again.
        epochs: Passes over its pairs, to the nearest window, > 0; ``0.25`` is a quarter of them.

    Raises:
        ValueError: There is no source, or not exactly one length, or it is not positive.

    Example:
        >>> StagePairs("general", sources=[], epochs=1)
        Traceback (most recent call last):
        ...
        ValueError: stage 'general': `sources` is empty; name at least one source of preference pairs
    """

    name: str
    sources: list[PairSource] = field(default_factory=list)
    mix: Mix | None = None
    windows: int | None = None
    pairs: int | None = None
    epochs: float | None = None

    def __post_init__(self) -> None:
        where = f"stage {self.name!r}"
        if not self.sources:
            raise ValueError(f"{where}: `sources` is empty; name at least one source of preference pairs")
        lengths = {name: getattr(self, name) for name in ("windows", "pairs", "epochs")}
        given = {name: value for name, value in lengths.items() if value is not None}
        if len(given) != 1:
            told = " and ".join(f"`{name}`" for name in given) or "none"
            raise ValueError(f"{where}: give one of `windows`, `pairs` and `epochs`, got {told}")
        for name, value in given.items():
            if not 0 < value < float("inf"):
                raise ValueError(f"{where}: `{name}` must be > 0, got {value}")

    def length(self, window: int, windows_per_epoch: int) -> int:
        """Windows of the stage, at least one.

        Args:
            window: Pairs asked for in each.
            windows_per_epoch: Windows of one pass over its pairs.
        """
        if self.windows is not None:
            return self.windows
        wanted = self.pairs / window if self.pairs is not None else (self.epochs or 0) * windows_per_epoch
        return max(1, round(wanted))


@dataclass(frozen=True)
class StagedPlan:
    """The plans of several stages, one after another; window and members are numbered over all of them.

    Attributes:
        plans: Of each stage, over its own windows and members.
        lengths: Windows of each stage, > 0.
        trained: Trained members that each stage has.
        replayed: Members to replay that each stage has.

    Example:
        >>> first, second = (GroupPlan(counts=(1, 1), window=1, seed=seed) for seed in (0, 1))
        >>> plan = StagedPlan((first, second), lengths=(3, 2), trained=(2, 2), replayed=(0, 0))
        >>> plan.windows_per_epoch, plan.stages
        (5, (range(0, 3), range(3, 5)))
        >>> [plan.trained_in(window)[0] // 2 for window in range(5)]
        [0, 0, 0, 1, 1]
    """

    plans: tuple[Plan, ...]
    lengths: tuple[int, ...]
    trained: tuple[int, ...]
    replayed: tuple[int, ...]

    @property
    def stages(self) -> tuple[range, ...]:
        """Numbers of the windows of each stage."""
        return tuple(range(start, stop) for start, stop in pairwise(accumulate(self.lengths, initial=0)))

    @property
    def windows_per_epoch(self) -> int:
        """Optimizer steps of all stages."""
        return sum(self.lengths)

    @property
    def most_trained(self) -> int:
        """See :class:`~lit_align.data.packing.Plan`."""
        return max(plan.most_trained for plan in self.plans)

    @property
    def most_replayed(self) -> int:
        """See :class:`~lit_align.data.packing.Plan`."""
        return max(plan.most_replayed for plan in self.plans)

    def trained_in(self, window: int) -> list[int]:
        """Trained members of a window."""
        stage, own = self._place(window)
        return [sum(self.trained[:stage]) + member for member in self.plans[stage].trained_in(own)]

    def replayed_in(self, window: int) -> list[int]:
        """Replayed members of a window."""
        stage, own = self._place(window)
        return [sum(self.replayed[:stage]) + member for member in self.plans[stage].replayed_in(own)]

    def _place(self, window: int) -> tuple[int, int]:
        """Number of the stage that a window is of, and of the window in it."""
        window %= self.windows_per_epoch  # a loader fetches ahead, also after the last one
        return next((n, window - own.start) for n, own in enumerate(self.stages) if window in own)


class StagedPreferences(PlannedDataModule):
    """Windows of preference pairs for the stages of a progressive run, which ``StageTransition`` goes through.

    The windows of the run are those of the first stage, then of the second, and so on: one epoch of the trainer. Each
    stage reads, splits, mixes and packs its pairs as :class:`~lit_align.data.preference.PreferenceDataModule` does,
    in an order of its own that depends on ``seed`` and its name alone. Every validation is over the held-out pairs of
    all stages; metrics by source are named ``by_source/STAGE/SOURCE``.

    Args:
        base: The base whose tokenizer and chat template are used; linked to ``model.base``.
        stages: What each stage trains on, in order; names are unique.
        val_fraction: Share of the groups of each stage's sources for validation, by a hash of their names, in [0, 1).
            A group is on the same side in all stages.
        replay: Where replayed conversations come from, in all stages; they carry ``model.anchor``, no pair loss.
        replay_share: Replayed conversations per pair, on top of the window, >= 0.
        window: Pairs an optimizer step, over all ranks, > 0.
        token_budget: Tokens a forest (one forward and backward pass), > 0; sets the memory, not the result.
        lengths: Token limits of prompt and answer; a pair of which one answer is dropped is dropped.
        thinking: The template's thinking switch for prompts.
        bad_rows: What a row does that its source or the chat format refuses: ``stop`` the run, or be counted and left
            out (``drop``).
        split_seed: Seed of the split.
        seed: Seed of the orders.
        workers: Processes that build forests ahead.
        processes: Processes that tokenise before training, >= 1; null takes one, and all processors for many pairs.
        cache: Folder in which the tokenised data are kept for later runs, each stage's by itself; null keeps none.

    Raises:
        ValueError: A value is out of its range; there is no stage, or two have one name; a source's row breaks a rule;
            no pair of a stage is left; a pair is over the token budget.
    """

    holds = "pairs"

    def __init__(
        self,
        base: str = "tiny-qwen3",
        stages: list[StagePairs] | None = None,
        val_fraction: float = 0.0,
        replay: list[ConversationSource] | None = None,
        replay_share: float = 0.0,
        window: int = 32,
        token_budget: int = 8192,
        lengths: Lengths = Lengths(),
        thinking: bool = False,
        bad_rows: BadRows = "stop",
        split_seed: int = 0,
        seed: int = 0,
        workers: int = 0,
        processes: int | None = None,
        cache: str | None = None,
    ) -> None:
        super().__init__(token_budget, workers)
        refuse_mixture(window, val_fraction, replay or [], replay_share)
        self.stages = tuple(stages or ())
        names = [stage.name for stage in self.stages]
        if not names:
            raise ValueError("`data.stages` is empty: name at least one stage")
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"`data.stages`: {names.count(repeated[0])} stages are named {repeated[0]!r}")
        self.val_fraction, self.replay_share, self.split_seed, self.window = (
            val_fraction, replay_share, split_seed, window
        )  # fmt: skip
        self._parts = {
            stage.name: PreferenceDataModule(
                base, list(stage.sources), stage.mix, val_fraction=val_fraction, replay=replay,
                replay_share=replay_share, window=window, token_budget=token_budget, lengths=lengths,
                thinking=thinking, bad_rows=bad_rows, split_seed=split_seed, seed=seed_of(seed, stage.name),
                processes=processes, cache=cache,
            )
            for stage in self.stages
        }  # fmt: skip

    def setup(self, stage: str) -> None:
        """Read, split and tokenise the pairs of all stages, once; says what was kept, cut and dropped."""
        if self._trained:
            return
        for name, part in self._parts.items():
            logger.info(f"stage {name}:")
            part.trainer = self.trainer
            try:
                part.setup(stage)
            except ValueError as error:
                raise ValueError(f"stage {name!r}: {error}") from error
            self.chat = part.chat
            self.trained_groups |= part.trained_groups
            self.trained_questions |= part.trained_questions
        trees = {name: part.all_trees for name, part in self._parts.items()}
        self._trained, self._replayed, self._validation = (
            StagedTrees({name: own[kind] for name, own in trees.items()}) for kind in range(3)
        )
        self.reports = {
            f"{name}/{kind}": report for name, part in self._parts.items() for kind, report in part.reports.items()
        }
        for name, windows in self.stage_windows.items():
            passes = len(windows) / self._parts[name].windows_per_epoch
            logger.info(
                f"stage {name}: {len(windows)} windows from {windows.start}, {passes:.2f} passes over its pairs"
            )

    @property
    def by_stage(self) -> dict[str, PreferenceDataModule]:
        """The data of each stage, by name, in order."""
        return dict(self._parts)

    @property
    def stage_windows(self) -> dict[str, range]:
        """Numbers of the windows of each stage, by name, in order; once the pairs are read."""
        return dict(zip(self._parts, self._plan.stages, strict=True))

    @property
    def _plan(self) -> StagedPlan:
        parts = self._parts.values()
        return StagedPlan(
            plans=tuple(part.plan for part in parts),
            lengths=tuple(
                stage.length(self.window, part.windows_per_epoch)
                for stage, part in zip(self.stages, parts, strict=True)
            ),
            trained=tuple(len(part.all_trees[0]) for part in parts),
            replayed=tuple(len(part.all_trees[1]) for part in parts),
        )

    @property
    def _validation_plan(self) -> GroupPlan:
        return GroupPlan(pair_counts(self._validation), self.window, 0)

    def identity(self) -> dict[str, str]:
        """For each stage the fingerprint of its tokens, and what decides which of them share a window."""
        return {
            f"data.stages.{name}": ", ".join(
                [
                    f"{len(windows)} windows",
                    *(f"{key.removeprefix('data.')} {value}" for key, value in self._parts[name].identity().items()),
                ]
            )
            for name, windows in self.stage_windows.items()
        }
