"""Rated answers to trees of tokens: each with a mismatched one under its prompt, all of a group in one tree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from lit_align.data.chat import ChatFormat
from lit_align.data.lengths import Lengths
from lit_align.data.mismatched import mismatches, with_answer_of
from lit_align.data.mixture import group_of
from lit_align.data.tokenising import BadRows, Tokenising
from lit_align.data.windows import Tree, grouped
from lit_align.forest import TokenPath
from lit_align.types import Conversation, Message, RatedAnswer


class RatedTokenising:
    """Tokenises the rated answers of one part of the data and counts what becomes of them.

    Args:
        chat: The chat format; an answer is rendered as the last turn after its prompt.
        lengths: Token limits.
        window: Most answers of a group that share a tree; a larger group is split.
        token_budget: Most rows of a tree; a larger group is split, a larger answer (with its mismatched one) an error.
        bad_rows: What an answer does that the chat format refuses: ``stop`` the run, or be counted and left out.
        part: Name of the part, for messages.
    """

    def __init__(
        self, chat: ChatFormat, lengths: Lengths, window: int, token_budget: int, bad_rows: BadRows, part: str
    ) -> None:
        self._lengths, self._window, self._budget, self._part = lengths, window, token_budget, part
        self._tokenising = Tokenising(chat, lengths, "last", token_budget, 1.0, bad_rows, part)
        self._done: dict[int, tuple[RatedAnswer, Conversation]] = {}
        self.refuse, self.say = self._tokenising.refuse, self._tokenising.say

    def trained_tokens(self, answer: RatedAnswer) -> int:
        """Tokens that an answer brings into training; 0 if it is dropped."""
        return self._tokenising.trained_tokens(self._conversation(answer))

    def pass_over(self, answers: Iterable[RatedAnswer]) -> None:
        """Count those that a mix had no use for, and that were never tokenised."""
        self._tokenising.pass_over(map(self._conversation, answers))

    def trees(self, answers: Sequence[RatedAnswer]) -> list[Tree]:
        """Trees of the groups: for each answer its own path, and that of a mismatched answer after it.

        Args:
            answers: Any; one that is given again (the same object) is in the group of the second copies.

        Raises:
            ValueError: An answer is refused and ``bad_rows`` is ``stop``; one is over the token budget; a source loses
                more than ``lengths.max_dropped`` allows; nothing is left, or nothing to mismatch.
        """
        trees = self._tokenising.trees([self._conversation(one) for one in answers])
        kept = [one for one in answers if self.trained_tokens(one)]
        try:
            others = mismatches([group_of(one) for one in kept])
        except ValueError as error:
            raise ValueError(f"{self._part}: {error}") from error
        groups: dict[str, list[tuple[TokenPath, TokenPath]]] = {}
        most, cut = self._lengths.max_length, 0
        for tree, answer, other in zip(trees, kept, others, strict=True):
            [path], [stranger] = tree.paths, trees[other].paths
            mismatched = with_answer_of(path, stranger)
            if len(mismatched.tokens) > most:
                mismatched = replace(mismatched, tokens=mismatched.tokens[:most], classes=mismatched.classes[:most])
                cut += 1
            groups.setdefault(tree.group, []).append((replace(path, desirable=answer.desirable), mismatched))
        if cut:
            self.say(
                f"{cut} of {len(kept)} mismatched answers are cut at `data.lengths.max_length` = {most}; they are not "
                "trained"
            )
        return grouped(groups, self._window, self._budget, self._part, "answer")

    def _conversation(self, answer: RatedAnswer) -> Conversation:
        # By identity, as the tokenising knows it: two rows may say the same.
        if (done := self._done.get(id(answer))) is None:
            turns = (*answer.prompt, Message("assistant", answer.completion))
            done = self._done[id(answer)] = (
                answer, Conversation(turns, answer.id, answer.source, group_of(answer)),
            )  # fmt: skip
        return done[1]
