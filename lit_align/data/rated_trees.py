"""The trees of rated answers: under the prompt of each stands a second, mismatched answer."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import cached_property

import numpy as np

from lit_align.data.lengths import refuse_over_budget
from lit_align.data.mismatched import mismatches, with_answer_of
from lit_align.data.prepared.examples import Examples
from lit_align.data.trees import PairTrees
from lit_align.forest import TokenPath
from lit_align.trie import shared_size

logger = logging.getLogger(__name__)


class RatedTrees(PairTrees):
    """A tree for each group of an epoch's answers; after the path of each answer that of a mismatched one.

    Args:
        examples: The answers, each of one path and with a group.
        window: Most answers of a tree.
        budget: Most rows of a tree.
        most: Tokens after which a mismatched path is cut.

    Raises:
        ValueError: All answers are of one group; or one is over the budget with its mismatched one.
    """

    undivided = "answer"

    def __init__(self, examples: Examples, window: int, budget: int, most: int) -> None:
        groups = examples.groups
        try:
            self._others = mismatches([groups[number] for number in examples.order.tolist()])
        except ValueError as error:
            raise ValueError(f"{examples.part}: {error}") from error
        self._most = most
        self._cut: set[int] = set()
        super().__init__(examples, window, budget)
        for at in np.flatnonzero(self.sizes > budget)[:1]:
            own, _ = self[int(at)].paths  # of one answer alone: more of them are parted
            named = f"{own.example} with a mismatched answer"
            refuse_over_budget(named, int(self.sizes[at]), budget, self.undivided)

    @property
    def cut(self) -> int:
        """Number of mismatched answers that are cut."""
        return len(self._cut)

    @cached_property
    def ratings(self) -> tuple[bool, ...]:
        """Whether each answer of the epoch is a good one, tree by tree."""
        return tuple(map(bool, self._examples.ratings_of(self._examples.order[self._members])))

    def _paths(self, place: int) -> tuple[TokenPath, ...]:
        [own], [other] = (super(RatedTrees, self)._paths(one) for one in (place, self._others[place]))
        mismatched, most = with_answer_of(own, other), self._most
        if len(mismatched.tokens) <= most:
            return own, mismatched
        self._cut.add(place)
        return own, replace(mismatched, tokens=mismatched.tokens[:most], classes=mismatched.classes[:most])

    def _size(self, place: int) -> int:
        return shared_size([path.tokens for path in self._paths(place)])


def rated_trees(examples: Examples, window: int, budget: int, most: int) -> RatedTrees:
    """Trees of the groups of an epoch's answers; says how many groups are split and how many answers are cut.

    Args:
        examples: The answers.
        window: Most answers of a tree.
        budget: Most rows of a tree.
        most: Tokens after which a mismatched path is cut.

    Raises:
        ValueError: See :class:`RatedTrees`.
    """
    trees = RatedTrees(examples, window, budget, most)
    if trees.cut:
        logger.info(
            f"{examples.part}: {trees.cut} of {len(examples.order)} mismatched answers are cut at "
            f"`data.lengths.max_length` = {most}; they are not trained"
        )
    if trees.parted:
        logger.info(
            f"{examples.part}: {trees.parted} of {trees.groups} groups hold more answers than `data.window` = {window} "
            f"or more tokens than `data.token_budget` = {budget}, and are split"
        )
    return trees
