"""Questions of TAT-QA with their gold answers, for supervised fine-tuning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lit_align.data.sources.rows import check_limit
from lit_align.data.sources.tat_qa.answers import AnswerFormat, PlainAnswer
from lit_align.data.sources.tat_qa.prompt import DefaultPrompt, TATQAPrompt
from lit_align.data.sources.tat_qa.source import TATQA
from lit_align.types import Conversation, ConversationSource, Message, SamplePrompt, stop_at


@dataclass(frozen=True)
class TATQAAnswers(ConversationSource):
    """Questions about financial tables with their gold answers (TAT-QA; Zhu et al. 2021, arXiv:2105.07624).

    One conversation a question, asked as the pairs of ``TATQA`` and ``TATQABenchmark`` ask it under the same options,
    and on the same side of the split under the same ``val_fraction`` and ``split_seed``.

    Args:
        path: ``tatqa_dataset_train.json``, ``…_dev.json`` or ``…_test_gold.json`` as they are published, or the id on
            the hub.
        hub_file: The file that is read when ``path`` is the id on the hub.
        prompt: The template: ``DefaultPrompt``, or ``RecipePrompt`` for comparisons.
        answer: What the answers say: ``PlainAnswer``, or ``DerivationThenAnswer`` (a gold derivation is shown wherever
            there is one).
        group: Whose questions share a tree of tokens and a side of the split: those of a ``table``, or each
            ``question`` by itself (a table's questions may then be on both sides).
        limit: Read the first so many tables only, at least 1; null reads all.

    Raises:
        ValueError: ``limit`` is below 1.
    """

    path: str = "next-tat/TAT-QA"
    hub_file: str = "tatqa_dataset_train.json"
    prompt: TATQAPrompt = DefaultPrompt()
    answer: AnswerFormat = PlainAnswer()
    group: Literal["table", "question"] = "table"
    limit: int | None = None

    def __post_init__(self) -> None:
        check_limit(self.limit, "TATQAAnswers")

    def conversations(self) -> list[Conversation]:
        """Read the questions, in the file's order; ids are their uids.

        Raises:
            FileNotFoundError: There is no such file.
            OSError: The hub cannot be reached.
            ValueError: The file breaks a rule or holds no answers. The message names file, table, question, key and
                value.
        """
        return [
            Conversation((*one.messages, Message("assistant", one.gold)), one.id, one.source, one.group)
            for one in self.prompts()
        ]

    def prompts(self, refuse: Callable[[str, ValueError], None] = stop_at) -> list[SamplePrompt]:
        """Every question, scored by the official metric: those of ``TATQA``."""
        asked = TATQA(self.path, self.hub_file, self.prompt, self.answer, group=self.group, limit=self.limit)
        return asked.prompts(refuse)
