"""What became of the answers of each source: kept, cut, dropped, refused; and when that stops a run."""

from __future__ import annotations

import logging
from collections import Counter, deque

from tqdm import tqdm

from lit_align.data.lengths import Lengths, histogram

logger = logging.getLogger(__name__)

REFUSED = "refused"
_KEPT = {"kept", "cut"}
_SHOWN_SIZES = 100_000  # of each source, the latest: a stream has no end


class LengthReport:
    """Counts by source while one part of the data is tokenised, behind a progress bar.

    Args:
        part: Name of the part, for messages.
        lengths: The limits that answers were held to.
        what: What is counted, for messages.
    """

    def __init__(self, part: str, lengths: Lengths, what: str = "answers") -> None:
        self._part, self._lengths, self._what = part, lengths, what
        self._outcomes: dict[str, Counter[str]] = {}
        self._sizes: dict[str, deque[tuple[int, int]]] = {}  # prompt, and prompt with answer
        self._unread, self._undrawn = Counter[str](), Counter[str]()
        self._first_refusal: dict[str, str] = {}
        self._bar: tqdm[None] | None = None  # opened at the first row: two open bars write over one another

    def row(self) -> None:
        """Move the progress bar by a row."""
        if self._bar is None:
            self._bar = tqdm(desc=f"tokenising {self._part}", delay=2, leave=False, unit=" rows")
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
        self._sizes.setdefault(source, deque(maxlen=_SHOWN_SIZES)).append((prompt, size))

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
        logger.info(f"{self._part}: {line}")

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
                f"no example{of} is left for {self._part}: no row was read or drawn; look at `data.sources`"
            )
        told = ", ".join(f"{number} {outcome}" for outcome, number in sorted(found.items()))
        raise ValueError(
            f"no example{of} is left for {self._part}: of {found.total()} {self._what} {told} ({self._lengths}); "
            f"{self._advice(found, self._first_refusal.get(source) or next(iter(self._first_refusal.values()), ''))}"
        )

    def stop_at_losses(self, least: int = 0) -> None:
        """Stop where a source loses more than ``lengths.max_dropped``; the lengths are logged as a table.

        A source reads all its rows, whatever a mix draws of them: those that it could not read count in the share that
        was drawn of the others.

        Args:
            least: A source of which fewer rows were counted is not judged yet.

        Raises:
            ValueError: Names source, numbers, limit and ways out.
        """
        for source, count in self._outcomes.items():
            dropped = sum(number for outcome, number in count.items() if outcome not in _KEPT)
            read = count.total() - self._unread[source] + self._undrawn[source]
            beside = self._unread[source] * self._undrawn[source] / max(1, read)  # the part that was not drawn
            few = count.total() < least
            if few or dropped - beside <= self._lengths.max_dropped * (count.total() - beside):
                continue
            self._show_lengths(source, count)
            raise ValueError(
                f"{self._part}: {source}: {dropped} of {count.total()} {self._what} ({dropped / count.total():.0%}) "
                f"would be dropped, more than `data.lengths.max_dropped` = {self._lengths.max_dropped:.0%} allows; "
                f"{self._advice(count, self._first_refusal.get(source, ''))}; or raise `data.lengths.max_dropped`"
            )

    def _show_lengths(self, source: str, count: Counter[str]) -> None:
        by_prompt = count["prompt too long"] > count["too long"]
        sizes = [pair[0 if by_prompt else 1] for pair in self._sizes.get(source, [])]
        limit = (self._lengths.max_prompt_length if by_prompt else 0) or self._lengths.max_length
        if sizes:
            what = "the prompts" if by_prompt else "prompt and answer together"
            table = histogram(sizes, limit)
            logger.warning(f"{self._part}: {source}: tokens of {what}, against a limit of {limit}:\n{table}")

    def _advice(self, count: Counter[str], refusal: str) -> str:
        prompts = "max_prompt_length" if self._lengths.max_prompt_length else "max_length"
        cut = ", or use `overlong: cut`" if self._lengths.overlong == "drop" else ""
        clauses = {
            "too long": f"raise `data.lengths.max_length` (and `data.token_budget`){cut}",
            "prompt too long": f"raise `data.lengths.{prompts}` (and `data.token_budget`), or shorten the prompts",
            REFUSED: f"mend what is refused ({refusal})",
        }
        return "; ".join(clause for outcome, clause in clauses.items() if count[outcome]) or "look at the rows"
