"""MT-Bench: two turns of conversation, each answer scored."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

from lit_align.data.chat import ChatFormat
from lit_align.evals.answering import Answer, Generation, Prompt
from lit_align.evals.benchmark import Benchmark, Bounds, ItemResult
from lit_align.evals.judge.contract import Judged, Scorer
from lit_align.evals.mt_bench_questions import Drawn, Question, of_categories, read_questions
from lit_align.evals.scored import scored, scorer_conditions
from lit_align.models.policy import Policy
from lit_align.types import Message

logger = logging.getLogger(__name__)

_NOT_ASKED = Answer(prompt="", text="", hit_cap=False, tokens=0, think_tokens=0, ties=0)


@dataclass(frozen=True)
class MTBenchBenchmark(Benchmark):
    """Answers to the questions of MT-Bench (Zheng et al. 2023, arXiv:2306.05685), scored turn by turn.

    A question has two turns, and the second one is asked with the model's own first answer in the history: without its
    thoughts, and without control tokens that the model may have written into it. Each turn is an item, ``81/1`` and
    ``81/2``; both are one cluster, and their line of the table is the category. Where the first answer is empty (a
    model that never stopped thinking, for example) the second turn is not asked: its answer counts as empty too, is
    scored as such, and the log says how many there were.

    The prompt of a second turn is recorded with ``[the answer of 81/1]`` where that answer stands, so that the items of
    two models can be compared one by one; the answer itself is the one of ``81/1``.

    Args:
        scorer: What scores the answers; its main measure is that of the benchmark.
        path: A file in FastChat's format, English, Russian or other: ``question_id``, ``category``, two ``turns``,
            perhaps a ``reference`` of one answer a turn; JSON Lines or a JSON list. Or the id of a data set on the hub.
        hub_file: The file that is read when ``path`` is an id on the hub.
        categories: Categories that are asked; null asks all.
        questions: The part of their questions that is asked; null asks all.
        generation: How the answers are generated: one cap for the baseline and all later runs.
        name: Names the benchmark in tables, files and log keys.

    Raises:
        ValueError: ``name`` or ``categories`` is empty.

    Example:
        >>> choosing = Drawn(32)  # of 80 questions in 8 categories: 4 of each
        >>> reporting = Drawn(32, part="rest")  # the other 48
    """

    scorer: Scorer
    path: str = "t-tech/ru-mt-bench"
    hub_file: str = "raw/question.jsonl"
    categories: list[str] | None = None
    questions: Drawn | None = None
    generation: Generation = Generation(max_new_tokens=512)
    name: str = "mt-bench"

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("MTBenchBenchmark: name must not be empty")
        if self.categories == []:
            raise ValueError("MTBenchBenchmark: categories must name at least one, or be null for all")

    @property
    def measures(self) -> Mapping[str, Bounds]:
        """Those of the scorer."""
        return self.scorer.measures()

    @property
    def won_by(self) -> str:
        """The scorer's main measure."""
        return next(iter(self.scorer.measures()))

    def check(self) -> None:
        """Read the questions, and have the scorer look whether it could work, and on these."""
        asked = self._asked
        self.scorer.check()
        self.scorer.check_asked([one for question in asked for one in _judged(question, "", ("", ""))])

    def conditions(self) -> dict[str, str | int]:
        """Fingerprint of the questions, number of items, how answers are generated, and how they are scored."""
        text = json.dumps([asdict(one) for one in self._asked], ensure_ascii=False)
        return {
            "items": hashlib.sha256(text.encode()).hexdigest()[:16],
            "n": sum(len(one.turns) for one in self._asked),
            **self.generation.conditions(),
            **scorer_conditions(self.scorer),
        }

    def published_questions(self) -> list[str]:
        """The first turns."""
        return [one.turns[0] for one in self._asked]

    def run(self, policy: Policy, chat: ChatFormat, *, progress: str | None = None) -> list[ItemResult]:
        """Ask both turns of every question; see :meth:`Benchmark.run`."""
        first = self._answered(policy, chat, [(_id(one, 0), _opening(one)) for one in self._asked], progress, "turn 1")
        said = [chat.without_control_tokens(answer.text) for answer in first]
        spoken = [i for i, text in enumerate(said) if text.strip()]
        later = [(_id(self._asked[i], 1), _follow_up(self._asked[i], said[i])) for i in spoken]
        second = dict(zip(spoken, self._answered(policy, chat, later, progress, "turn 2"), strict=True))
        if mute := len(first) - len(spoken):
            logger.info(
                f"{self.name}: {mute} of {len(first)} first answers are empty; their second turns were not asked and "
                "are scored as empty"
            )
        recorded = self._recorded(chat)
        answers: list[Answer] = []
        judged: list[Judged] = []
        for i, question in enumerate(self._asked):
            answers += [first[i], replace(second.get(i, _NOT_ASKED), prompt=recorded[i])]
            judged += _judged(question, said[i], [answer.text for answer in answers[-2:]])
        scores = scored(self.scorer, judged, policy.device, progress=progress and f"{progress}, scoring")
        return [
            ItemResult.of(
                answer,
                id=one.id,
                cluster=one.id.rpartition("/")[0],
                skill=one.category,
                gold=one.reference,
                scores=score,
            )
            for one, answer, score in zip(judged, answers, scores, strict=True)
        ]

    def _answered(
        self,
        policy: Policy,
        chat: ChatFormat,
        questions: Sequence[tuple[str, tuple[Message, ...]]],
        progress: str | None,
        turn: str,
    ) -> list[Answer]:
        if not questions:
            return []
        prompts = self.generation.render(chat, questions)
        return self.generation.answers(policy, chat, prompts, progress=progress and f"{progress}, {turn}")

    def _recorded(self, chat: ChatFormat) -> list[str]:
        """The prompts of the second turns as they are kept: the same whatever the first answers were."""
        asked = [(_id(one, 1), _follow_up(one, f"[the answer of {_id(one, 0)}]")) for one in self._asked]

        def text(prompt: Prompt) -> str:
            return str(chat.tokenizer.decode(list(prompt.tokens), skip_special_tokens=False))

        return [text(prompt) for prompt in self.generation.render(chat, asked)]

    @cached_property
    def _asked(self) -> list[Question]:
        """The questions in the file's order, read once, so that before and after are the same ones."""
        questions = read_questions(self.path, self.hub_file)
        if self.categories is not None:
            questions = of_categories(questions, self.categories, self.path)
        if self.questions is None:
            return questions
        try:
            return self.questions.of(questions)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error


def _id(question: Question, turn: int) -> str:
    return f"{question.id}/{turn + 1}"


def _opening(question: Question) -> tuple[Message, ...]:
    return (Message("user", question.turns[0]),)


def _follow_up(question: Question, said: str) -> tuple[Message, ...]:
    return (*_opening(question), Message("assistant", said), Message("user", question.turns[1]))


def _judged(question: Question, said: str, answers: Sequence[str]) -> list[Judged]:
    """Both answers as they are scored; ``said`` is the first one as it stands in the history."""
    turns = (_opening(question), _follow_up(question, said))
    return [
        Judged(
            _id(question, turn),
            asked,
            answer,
            question.references[turn],
            question.category,
            question.references[:turn],
        )
        for turn, (asked, answer) in enumerate(zip(turns, answers, strict=True))
    ]
