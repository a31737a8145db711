"""What became of the answers of each source: kept, cut, dropped, refused; and when that stops a run."""

from __future__ import annotations

import logging
from array import array
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lit_align.data.lengths import Lengths, histogram

logger = logging.getLogger(__name__)

REFUSED = "refused"
KEPT = {"kept", "cut"}


class LengthReport:
    """Counts by source while one part of the data is tokenised, behind a progress bar.

    Args:
        part: Name of the part, for messages.
        lengths: The limits that answers were held to.
        what: What is counted, for messages.

    Attributes:
        lost_tokens: Answer tokens that cuts took, by source.
    """

    def __init__(self, part: str, lengths: Lengths, what: str = "answers") -> None:
        self.part, self._lengths, self._what = part, lengths, what
        self.lost_tokens = Counter[str]()
        self._outcomes: dict[str, Counter[str]] = {}
        self._sizes: dict[str, array[int]] = {}  # by turns: prompt, and prompt with answer
        self._unread, self._undrawn = Counter[str](), Counter[str]()
        self._first_refusal: dict[str, str] = {}
        self._lines: list[str] = []
        self._bar: tqdm[None] | None = None  # opened at the first row: two open bars write over one another

    @property
    def outcomes(self) -> Mapping[str, Counter[str]]:
        """By source: how many were ``kept``, ``cut``, ``refused``, or dropped for which reason."""
        return self._outcomes

    def undrawn(self, source: str) -> int:
        """Rows of a source that were read and never tokenised, since a mix did not ask for them."""
        return self._undrawn[source]

    def first_refusal(self, source: str) -> str:
        """Why the first refused row of a source was; empty where none was."""
        return self._first_refusal.get(source, "")

    @property
    def sizes(self) -> Mapping[str, NDArray[np.int64]]:
        """By source: tokens of each prompt, and of prompt and answer, before any limit, shape ``(N, 2)``."""
        return {source: np.array(pairs, np.int64).reshape(-1, 2) for source, pairs in self._sizes.items()}

    def state(self) -> dict[str, Any]:
        """All but :attr:`sizes`, as JSON holds it."""
        return {
            "what": self._what,
            "outcomes": self._outcomes,
            "unread": self._unread,
            "undrawn": self._undrawn,
            "first_refusal": self._first_refusal,
            "lost_tokens": self.lost_tokens,
            "lines": self._lines,
        }

    @classmethod
    def restored(
        cls, part: str, lengths: Lengths, state: Mapping[str, Any], sizes: Mapping[str, NDArray[np.int64]]
    ) -> LengthReport:
        """A report that was kept.

        Args:
            part: Name of the part.
            lengths: The limits.
            state: Its :meth:`state`.
            sizes: Its :attr:`sizes`.
        """
        report = cls(part, lengths, state["what"])
        report._outcomes = {source: Counter(count) for source, count in state["outcomes"].items()}
        report._unread, report._undrawn = Counter(state["unread"]), Counter(state["undrawn"])
        report.lost_tokens = Counter(state["lost_tokens"])
        report._first_refusal, report._lines = dict(state["first_refusal"]), list(state["lines"])
        report._sizes = {source: array("q", pairs.tobytes()) for source, pairs in sizes.items()}
        return report

    def repeat(self) -> None:
        """Log again what was said."""
        for line in self._lines:
            logger.info(f"{self.part}: {line}")

    def forget_sizes(self, most: int) -> None:
        """Forget the sizes of all but the latest answers of each source: a stream has no end.

        Args:
            most: Answers of which they are kept.
        """
        for sizes in self._sizes.values():
            del sizes[: max(0, len(sizes) - 2 * most)]

    def row(self) -> None:
        """Move the progress bar by a row."""
        if self._bar is None:
            self._bar = tqdm(desc=f"tokenising {self.part}", delay=2, leave=False, unit=" rows")
        self._bar.update()

    def count(self, source: str, outcome: str, prompt: int, size: int) -> None:
        """Count one outcome.

        Args:
            source: Name of the source.
            outcome: ``kept``, ``cut``, or why it was dropped.
            prompt: Tokens of the prompt.
            size: Tokens of prompt and answer, before any cut.
        """
        self._outcomes.setdefault(source, Counter())[outcome] += 1
        self._sizes.setdefault(source, array("q")).extend((prompt, size))

    def refuse(self, source: str, why: str, read: bool) -> None:
        """Count a row that breaks a rule; the first one's message is told.

        Args:
            source: Name of the source.
            why: What rule.
            read: Whether the source could read it, and tokenising refused it.
        """
        self._outcomes.setdefault(source, Counter())[REFUSED] += 1
        self._unread[source] += not read
        self._first_refusal.setdefault(source, why)

    def pass_over(self, source: str) -> None:
        """Count a row that was read, but never tokenised: a mix did not ask for it."""
        self._undrawn[source] += 1

    def say(self, line: str) -> None:
        """Log a line about this part, clear of the progress bar.

        Args:
            line: What is to be said.
        """
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._lines.append(line)
        logger.info(f"{self.part}: {line}")

    def tell(self) -> None:
        """Log a line a source."""
        for line in self.lines():
            self.say(line)

    def lines(self) -> list[str]:
        """A line a source, of what was counted so far."""
        lines = []
        for source, count in self._outcomes.items():
            told = ", ".join(f"{number} {outcome}" for outcome, number in sorted(count.items()))
            refusal = self._first_refusal.get(source)
            lines.append(
                f"{source}: {count.total()} {self._what}: {told}" + (f"; first refusal: {refusal}" if refusal else "")
            )
        return lines

    def stop_if_empty(self, left: int, source: str = "") -> None:
        """Stop where nothing is left.

        Args:
            left: Rows that are left.
            source: Of this source; of all, where it is empty.

        Raises:
            ValueError: Nothing is left; says what became of the rows and what to do.
        """
        if left:
            return
        found = sum((count for name, count in self._outcomes.items() if source in ("", name)), Counter[str]())
        of = f" of {source!r}" if source else ""
        if not found:
            raise ValueError(
                f"no example{of} is left for {self.part}: no row was read or drawn; look at `data.sources`"
            )
        told = ", ".join(f"{number} {outcome}" for outcome, number in sorted(found.items()))
        raise ValueError(
            f"no example{of} is left for {self.part}: of {found.total()} {self._what} {told} ({self._lengths}); "
            f"{self._advice(found, self._first_refusal.get(source) or next(iter(self._first_refusal.values()), ''))}"
        )

    def stop_at_losses(self, least: int = 0) -> None:
        """Stop where a source loses more than ``lengths.max_dropped``; the lengths are logged as a table.

        Args:
            least: A source of which fewer were counted is not judged yet.

        Raises:
            ValueError: Names source, numbers, limit and ways out.
        """
        for source, count in self._outcomes.items():
            dropped, of = self.dropped_of(source)
            if count.total() < least or dropped <= self._lengths.max_dropped * of:
                continue
            self._show_lengths(source, count)
            dropped = sum(number for outcome, number in count.items() if outcome not in KEPT)
            raise ValueError(
                f"{self.part}: {source}: {dropped} of {count.total()} {self._what} ({dropped / count.total():.0%}) "
                f"would be dropped, more than `data.lengths.max_dropped` = {self._lengths.max_dropped:.0%} allows; "
                f"{self.advice(source)}; or raise `data.lengths.max_dropped`"
            )

    def dropped_of(self, source: str) -> tuple[float, float]:
        """What is dropped of a source, and of how much, where a mix draws from it in part.

        A source reads all its rows, whatever a mix draws of them: those that it could not read count in the share that
        was drawn of the others.
        """
        count = self._outcomes[source]
        dropped = sum(number for outcome, number in count.items() if outcome not in KEPT)
        read = count.total() - self._unread[source] + self._undrawn[source]
        beside = self._unread[source] * self._undrawn[source] / max(1, read)  # the part that was not drawn
        return dropped - beside, count.total() - beside

    def advice(self, source: str) -> str:
        """What to do about the rows that a source loses."""
        return self._advice(self._outcomes[source], self.first_refusal(source))

    def _show_lengths(self, source: str, count: Counter[str]) -> None:
        by_prompt = count["prompt too long"] > count["too long"]
        sizes = self._sizes.get(source, array("q"))[0 if by_prompt else 1 :: 2]
        limit = (self._lengths.max_prompt_length if by_prompt else 0) or self._lengths.max_length
        if sizes:
            what = "the prompts" if by_prompt else "prompt and answer together"
            table = histogram(sizes, limit)
            logger.warning(f"{self.part}: {source}: tokens of {what}, against a limit of {limit}:\n{table}")

    def _advice(self, count: Counter[str], refusal: str) -> str:
        prompts = "max_prompt_length" if self._lengths.max_prompt_length else "max_length"
        cut = ", or use `overlong: cut`" if self._lengths.overlong == "drop" else ""
        clauses = {
            "too long": f"raise `data.lengths.max_length` (and `data.token_budget`){cut}",
            "prompt too long": f"raise `data.lengths.{prompts}` (and `data.token_budget`), or shorten the prompts",
            REFUSED: f"mend what is refused ({refusal})",
        }
        return "; ".join(clause for outcome, clause in clauses.items() if count[outcome]) or "look at the rows"
