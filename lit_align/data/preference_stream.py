"""Preference pairs that are read while training goes on, as windows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from lit_align.data.lengths import Lengths
from lit_align.data.mix import Mix
from lit_align.data.packing import GroupPlan
from lit_align.data.pair_tokenising import PairTokenising
from lit_align.data.stream_module import StreamDataModule
from lit_align.data.tokenising import BadRows
from lit_align.data.windows import pair_counts
from lit_align.types import PairSource, PreferencePair


class PreferenceStream(StreamDataModule):
    """Windows of preference pairs that are read and tokenised while training goes on, and held nowhere.

    As :class:`~lit_align.data.sft_stream.SFTStream` for conversations. Pairs of one group (the questions about one
    table) that stand side by side in a source stay together and share their context, as far as a window and the token
    budget hold them.

    Args:
        base: The base whose tokenizer and chat template are used; linked to ``model.base``.
        sources: Where the pairs come from; several need ``mix``.
        mix: Shares of the sources, met at every moment to within a run of a group. Each weight is of one source. An
            epoch ends where a source does (``by: subsample``; of the others it trains the beginning, in each epoch),
            or where all were read whole (``repeat``), or at ``size``.
        val_sources: Where validation pairs come from, which are held in memory; what has the prompt of one of them, or
            is of its group, is not trained.
        window: Pairs an optimizer step, over all ranks, > 0; the last window of an epoch may be smaller.
        token_budget: Tokens a forest (one forward and backward pass), > 0; sets the memory, not the result.
        lengths: Token limits of prompt and answer; a pair of which one answer is dropped is dropped. ``max_dropped`` is
            held against what was read so far, from 1,000 rows of a source on.
        thinking: The template's thinking switch for prompts.
        bad_rows: What a row does that its source cannot read, whose answers are equal, or that the chat format refuses:
            ``stop`` the run with its name, or be counted and left out (``drop``).
        shuffle_buffer: Pairs of each source that are held and drawn from, >= 1; neighbours of one group count as one
            and stay together. 1 trains in the order of the source.
        seed: Seed of the order.
        workers: Processes that read, tokenise and build forests ahead.

    Raises:
        ValueError: A value is out of its range; several sources have no mix; a source's row breaks a rule, or a source
            has nothing to train.

    Example:
        >>> from lit_align.data.sources.skill_pairs import SkillPairs
        >>> data = PreferenceStream(sources=[SkillPairs(["rise"], n=10**9)], lengths=Lengths(max_length=256))
        >>> data.setup("fit")  # reads a thousand examples
        >>> data.source_names
        ('skill_pairs',)
    """

    holds = "pairs"

    def __init__(
        self,
        base: str = "tiny-qwen3",
        sources: list[PairSource] | None = None,
        mix: Mix | None = None,
        val_sources: list[PairSource] | None = None,
        window: int = 32,
        token_budget: int = 8192,
        lengths: Lengths = Lengths(),
        thinking: bool = False,
        bad_rows: BadRows = "stop",
        shuffle_buffer: int = 1000,
        seed: int = 0,
        workers: int = 0,
    ) -> None:
        super().__init__(
            base, sources, mix, window, token_budget, lengths, thinking, bad_rows, shuffle_buffer, seed, workers
        )
        self.val_sources = val_sources or []

    @property
    def _read(self) -> Callable[[PairSource, Callable[[str, ValueError], None]], Iterator[PreferencePair]]:
        return _streamed

    @property
    def _tokenising(self) -> Callable[[], PairTokenising]:
        return self._tokenising_of("training")

    def _tokenising_of(self, part: str) -> partial[PairTokenising]:
        return partial(PairTokenising, self.chat, self.lengths, self.window, self.token_budget, self.bad_rows, part)

    @property
    def _together(self) -> int:
        return 2

    def _read_validation(self) -> Iterable[PreferencePair]:
        part = self._tokenising_of("validation")()
        read = [pair for source in self.val_sources for pair in source.usable(_all, part.refuse)]
        self._validation = part.trees(read) if self.val_sources else []
        return read

    @property
    def _validation_plan(self) -> GroupPlan:
        return GroupPlan(pair_counts(self._validation), self.window, 0)


def _streamed(source: PairSource, refuse: Callable[[str, ValueError], None]) -> Iterator[PreferencePair]:
    return source.stream(_all, refuse)


def _all(group: str) -> bool:
    del group
    return True
