"""Conversations that are read while training goes on, as windows for supervised fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from lit_align.data.lengths import Lengths
from lit_align.data.mix import Mix
from lit_align.data.packing import WindowPlan
from lit_align.data.part import BadRows, Workshop
from lit_align.data.prepared.examples import Examples
from lit_align.data.stream_module import StreamDataModule
from lit_align.data.streaming.epoch import Refuse
from lit_align.data.tokenising import ConversationTokeniser, Tokenising
from lit_align.data.trees import ConversationTrees, Trees
from lit_align.types import Conversation, ConversationSource, Outline


class SFTStream(StreamDataModule):
    """Windows of conversations for SFT that are read and tokenised while training goes on, and held nowhere.

    For sets that are too large to be read first. Training begins as soon as the beginning is read; a run needs
    ``trainer.max_steps``, for the length of the stream is not known. An epoch ends where the stream does, and the next
    one begins it anew in another order. What is validated or measured by a benchmark is passed over when it comes.

    A resumed run is exact: it reads its epoch from the beginning to where it stands, tokenising what may be dropped,
    and goes on with the same windows.

    Each of ``workers`` reads and tokenises the whole stream and builds the forests of its own windows; one or two are
    enough. Data of the hub are downloaded once, for every epoch, worker, rank and resume reads them again, and are not
    held in memory. A source that does not read row by row (Reddit's posts, TAT-QA) is read whole by each.

    Args:
        base: The base whose tokenizer and chat template are used; linked to ``model.base``.
        sources: Where the trained conversations come from; several need ``mix``.
        mix: Shares of the sources, met at every moment to within a run of a group. Each weight is of one source. An
            epoch ends where a source does (``by: subsample``; of the others it trains the beginning, in each epoch),
            or where all were read whole (``repeat``), or at ``size``.
        val_sources: Where the validation conversations come from, which are held in memory; what is equal to one of
            them, or of its group, is not trained.
        window: Trained conversations an optimizer step, over all ranks, > 0; the last one of an epoch may be smaller.
        token_budget: Tokens a forest (one forward and backward pass), > 0; sets the memory, not the result.
        lengths: Token limits of an example. ``max_dropped`` is held against what was read so far, from 1,000 rows of a
            source on.
        turns: Train ``all`` assistant turns or the ``last`` one of each conversation.
        thinking: The template's thinking switch for prompts.
        bad_rows: What a row does that its source cannot read or that the chat format refuses: ``stop`` the run with its
            name, or be counted and left out (``drop``).
        shuffle_buffer: Conversations of each source that are held and drawn from, >= 1; neighbours of one group count
            as one and stay together. 1 trains in the order of the source.
        seed: Seed of the order.
        workers: Processes that read, tokenise and build forests ahead.

    Raises:
        ValueError: A value is out of its range; several sources have no mix; a source's row breaks a rule, or a source
            has nothing to train.

    Example:
        >>> from lit_align.data.sources.table_skills import TableSkills
        >>> data = SFTStream(sources=[TableSkills(n=10**9)], window=2, lengths=Lengths(max_length=256))
        >>> data.setup("fit")  # reads a thousand examples
        >>> data.source_names
        ('table_skills',)
    """

    holds = "conversations"
    undivided = "answer"

    def __init__(
        self,
        base: str = "tiny-qwen3",
        sources: list[ConversationSource] | None = None,
        mix: Mix | None = None,
        val_sources: list[ConversationSource] | None = None,
        window: int = 16,
        token_budget: int = 8192,
        lengths: Lengths = Lengths(),
        turns: Literal["all", "last"] = "all",
        thinking: bool = False,
        bad_rows: BadRows = "stop",
        shuffle_buffer: int = 1000,
        seed: int = 0,
        workers: int = 0,
    ) -> None:
        super().__init__(
            base, sources, mix, val_sources, window, token_budget, lengths, thinking, bad_rows, shuffle_buffer, seed,
            workers,
        )  # fmt: skip
        self.turns = turns

    @property
    def _read(self) -> Callable[[ConversationSource, Refuse], Iterator[Conversation]]:
        return _streamed

    @property
    def _tokenise(self) -> ConversationTokeniser:
        return ConversationTokeniser(self.chat, self.lengths, self.turns)

    def _settings(self) -> Mapping[str, object]:
        return {"lengths": self.lengths, "thinking": self.thinking, "turns": self.turns}

    def _validation_part(self, workshop: Workshop) -> Tokenising:
        return Tokenising(
            self.chat, self.lengths, self.turns, self.token_budget, 1.0, self.bad_rows, "validation", workshop
        )

    def _drawn(self, part: Tokenising, source: ConversationSource) -> list[Outline]:
        return part.drawn([source])

    def _validation_trees(self, examples: Examples) -> Trees:
        return ConversationTrees(examples, self.token_budget)

    @property
    def _validation_plan(self) -> WindowPlan:
        return WindowPlan(len(self._validation), 0, self.window, 0.0, 0, self._validation.leaders)


def _streamed(source: ConversationSource, refuse: Refuse) -> Iterator[Conversation]:
    return source.stream(refuse)
