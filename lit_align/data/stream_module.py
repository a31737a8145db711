"""What the data modules of streams share: where the run stands, and what is known before the stream is read."""

from __future__ import annotations

import logging
import pickle
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import cycle
from math import ceil
from typing import Any, ClassVar, Literal

from tqdm import tqdm

from lit_align.data.chat import ChatFormat
from lit_align.data.forest_module import ForestDataModule
from lit_align.data.length_report import LengthReport
from lit_align.data.lengths import Lengths
from lit_align.data.mix import Mix
from lit_align.data.part import BadRows, Part, Workshop
from lit_align.data.prepared.deciding import deciding
from lit_align.data.prepared.examples import Examples, Tokenised
from lit_align.data.streaming.epoch import JUDGED, Refuse, Stream
from lit_align.data.streaming.held_out import HeldOut, names_of
from lit_align.data.streaming.naming import named_sources
from lit_align.data.streaming.windows import Streamed, WindowStream
from lit_align.data.trees import GivenTrees, Trees
from lit_align.data.windows import Tree
from lit_align.forest import TokenForest, Window
from lit_align.tokenizer import load_tokenizer
from lit_align.types import Outline

logger = logging.getLogger(__name__)

_WINDOWS_BETWEEN_REPORTS = 500


class StreamDataModule(ForestDataModule):
    """Windows of examples that are read while training goes on; a subclass says what they are.

    The windows of an epoch depend on the sources, the seed and the number of the epoch alone. A resumed run reads its
    epoch on from the beginning to where it stands.

    Args:
        base: See the subclasses, like all that follows.
        sources: One or several, with ``mix``.
        mix: Shares of the sources.
        val_sources: Sources of the validation set.
        window: Examples a window.
        token_budget: Tokens a forest.
        lengths: Token limits.
        thinking: The template's switch.
        bad_rows: What becomes of a row that breaks a rule.
        shuffle_buffer: Runs held and drawn from, of each source.
        seed: Seed of the orders.
        workers: Processes that read, tokenise and build ahead.
    """

    undivided: ClassVar[Literal["answer", "pair"]]  # what of an example must be in one forest

    def __init__(
        self,
        base: str,
        sources: Sequence[Any] | None,
        mix: Mix | None,
        val_sources: Sequence[Any] | None,
        window: int,
        token_budget: int,
        lengths: Lengths,
        thinking: bool,
        bad_rows: BadRows,
        shuffle_buffer: int,
        seed: int,
        workers: int,
    ) -> None:
        super().__init__(token_budget, workers)
        for name, value in (("window", window), ("shuffle_buffer", shuffle_buffer)):
            if value < 1:
                raise ValueError(f"`data.{name}` must be >= 1, got {value}")
        if not sources:
            raise ValueError(f"`data.sources` is empty: name at least one source of {self.holds}")
        if mix is None and len(sources) > 1:
            raise ValueError(
                f"`data.sources` are {len(sources)}, and a stream is not known before it is read: give each a weight "
                "in `data.mix`"
            )
        if mix is not None and mix.seed:
            raise ValueError(
                f"`data.mix.seed` = {mix.seed}: a stream draws nothing at random; set it to 0 (`data.seed` is that of "
                "the order)"
            )
        self.base, self.sources, self.val_sources = base, list(sources), list(val_sources or [])
        self.mix, self.window = mix, window
        self.lengths, self.thinking, self.bad_rows = lengths, thinking, bad_rows
        self.shuffle_buffer, self.seed = shuffle_buffer, seed
        self._stream: Stream
        self._held_out = HeldOut()
        # The epoch that the run is in, its first window in the run, and the first of the next one once that is known.
        self._epoch, self._start, self._end = 0, 0, -1
        self._lines: tuple[str, ...] = ()

    # ------------------------------------------------------------------ what a subclass says

    @property
    @abstractmethod
    def _read(self) -> Callable[[Any, Refuse], Iterator[Any]]:
        """Reads a source row by row; a function of a module, so that a spawned worker gets it."""

    @property
    @abstractmethod
    def _tokenise(self) -> Callable[[Any], Tokenised]:
        """Tokenises a record."""

    @abstractmethod
    def _validation_part(self, workshop: Workshop) -> Part:
        """What tokenises the validation set."""

    @abstractmethod
    def _drawn(self, part: Any, source: Any) -> list[Outline]:
        """What is validated of a source."""

    @abstractmethod
    def _validation_trees(self, examples: Examples) -> Trees:
        """Trees of the validation set."""

    @abstractmethod
    def _settings(self) -> Mapping[str, object]:
        """What decides the tokens of a record, beside the base's tokenizer."""

    # ------------------------------------------------------------------ set-up

    def setup(self, stage: str) -> None:
        """Read the validation set and the beginning of the stream, once; says what was kept, cut and dropped of it."""
        del stage
        if self._trained:
            return
        logger.info("reading the beginning of a stream of %s; tokenizer of %s", self.holds, self.base)
        self.chat = ChatFormat(load_tokenizer(self.base), thinking=self.thinking)
        if self.val_sources:
            self._read_validation()
        report = partial(LengthReport, "training", self.lengths, *(["pairs"] if self.holds == "pairs" else []))
        sources = named_sources(self.sources, self._read, report, self.bad_rows, self.mix)
        self._stream = Stream(
            sources, self._read, self._tokenise, report, self.bad_rows, self.token_budget, self.undivided, self.mix,
            self.window, self.shuffle_buffer, self.seed, self._held_out,
        )  # fmt: skip
        first: list[Tree] = []
        epoch = self._stream.epoch(0)
        with tqdm(desc="reading the beginning of the stream", unit=" examples", delay=2, leave=False) as bar:
            for members in epoch.windows():
                first += members
                bar.update(len(members))
                if len(first) >= JUDGED:
                    break
        self._trained = GivenTrees(first)
        for line in epoch.lines():
            logger.info(f"training, beginning of the stream: {line}")

    def _read_validation(self) -> None:
        workshop = Workshop()
        part = self._validation_part(workshop)
        drawn = [one for source in self.val_sources for one in self._drawn(part, source)]
        self._held_out = self._held_out.also(names_of(pickle.loads(workshop.records.pickled(one)) for one in drawn))
        self._validation = self._validation_trees(part.examples(drawn))

    def keep_out(self, groups: Iterable[str], questions: Iterable[str]) -> None:
        """Pass over what a benchmark measures, before the first window is read.

        Args:
            groups: Groups of its items.
            questions: Names of its questions (:func:`~lit_align.data.mixture.question_hash`).
        """
        self._held_out = self._held_out.also(groups, questions)

    # ------------------------------------------------------------------ windows

    @property
    def windows_per_epoch(self) -> int:
        """Optimizer steps of an epoch, if that is known.

        Raises:
            ValueError: It is not: an epoch ends where the stream does.
        """
        if self.mix is not None and self.mix.size is not None:
            return ceil(self.mix.size / self.window)
        if self.trainer is not None and getattr(self.trainer, "fast_dev_run", False):
            return self.trainer.max_steps
        raise ValueError(
            "the length of a stream is not known before it is read, so that `trainer.max_epochs` has no number of "
            "steps: set `trainer.max_steps` and `trainer.max_epochs: null`, or `data.mix.size`"
        )

    @cached_property
    def source_names(self) -> tuple[str, ...]:
        """Names of the sources, then those of the validation set; the same on all ranks."""
        return tuple(dict.fromkeys([*self._stream.sources, *self._validation.source_names()]))

    def train_dataloader(self) -> Iterable[Window]:
        """Windows of this rank, from the position at which the run stands to the end of the epoch."""
        return _Reopened(self._windows)

    def _windows(self) -> Iterator[Window]:
        assert self.trainer is not None
        done = self.trainer.global_step
        if 0 <= self._end <= done:
            self._epoch, self._start, self._end = self._epoch + 1, self._end, -1
        for item in self._loader(self._opened(done - self._start), None):
            if isinstance(item, Exception):
                raise item
            assert isinstance(item, Streamed)
            self._lines = item.lines
            if item.window is None:
                self._end = self._start + item.passed
                self._tell(f"epoch {self._epoch} of the stream: {item.passed} windows")
                return
            if item.window.index and item.window.index % _WINDOWS_BETWEEN_REPORTS == 0:
                self._tell(f"epoch {self._epoch} of the stream, window {item.passed}")
            yield item.window

    def _opened(self, first: int) -> WindowStream:
        trainer = self.trainer
        assert trainer is not None
        stream = self._stream.passing_over(self._held_out)
        return WindowStream(
            stream, self._epoch, self._start, first, self.token_budget, trainer.global_rank, trainer.world_size
        )

    def _tell(self, when: str) -> None:
        for line in self._lines:
            logger.info(f"training, {when}: {line}")
        self._lines = ()

    def teardown(self, stage: str) -> None:
        """Say what became of the rows that were read last."""
        if stage == "fit":
            self._tell(f"epoch {self._epoch} of the stream, so far")

    def training_windows(self) -> Iterator[Window]:
        """Refused: they are not known before training.

        Raises:
            ValueError: Says so.
        """
        raise ValueError(
            "a stream has no windows before training reads it: a reference that is to be cached ahead of it needs data "
            "that are read before training; set CachedReference.fill: lazily, or take another data module"
        )

    def largest_forest(self) -> TokenForest:
        """A forest that fills the token budget with the longest trees of the beginning, again and again."""
        return self._filled(cycle(self._trained.largest(len(self._trained))))

    # ------------------------------------------------------------------ resume

    def state_dict(self) -> dict[str, int]:
        """Where the epoch begins and, once it is known, ends; how far the run is in it is the trainer's count."""
        return {"epoch": self._epoch, "start": self._start, "end": self._end}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Take up :meth:`state_dict`."""
        self._epoch, self._start, self._end = (state_dict[key] for key in ("epoch", "start", "end"))

    def identity(self) -> dict[str, str]:
        """What decides the tokens, by its content, and what decides the windows."""
        return {
            "data": self._fingerprint,
            "data.bad_rows": self.bad_rows,
            "data.window": str(self.window),
            "data.token_budget": str(self.token_budget),
            "data.shuffle_buffer": str(self.shuffle_buffer),
            "data.seed": str(self.seed),
            "data.held_out": self._held_out.digest(),
            **({"data.mix": repr(self.mix)} if self.mix else {}),
        }

    @cached_property
    def _fingerprint(self) -> str:
        # Once a run: each checkpoint asks for it, and the bytes of large files take seconds to hash.
        return deciding({"sources": self.sources, **self._settings()}, self.chat.tokenizer)[0]


class _Reopened:
    """What a trainer opens again for each epoch; it has no length."""

    def __init__(self, windows: Callable[[], Iterator[Window]]) -> None:
        self._windows = windows

    def __iter__(self) -> Iterator[Window]:
        return self._windows()
