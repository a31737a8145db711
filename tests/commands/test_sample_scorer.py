"""Sampling with a scorer: what it is shown, what is written, and what does not go together."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from reward_models import save_reward_model

from lit_align.cli import main
from lit_align.commands.engines import Answer, Decoding, Engine, Request
from lit_align.commands.sample import Sample
from lit_align.data.sources.samples import BestOfSamples, RejectedSamples
from lit_align.evals.judge import Judged, ReferenceScorer, RewardModelScorer, Scorer
from lit_align.types import Message, PromptSource, SamplePrompt, stop_at

TEXTS = ["long answer", "<think>\nhm\n</think>\n\nshort", "<think>\nnever ends", "a"]


@dataclass(frozen=True)
class Prompts(PromptSource):
    metric: str = ""

    def prompts(self, refuse: Callable[[str, ValueError], None] = stop_at) -> list[SamplePrompt]:
        del refuse
        score = (lambda _: {self.metric: 1.0}) if self.metric else None
        turns = (Message("user", "Hi"),)
        return [SamplePrompt(name, turns, "gold", "source", "", score) for name in "abc"]


@dataclass(frozen=True)
class Fixed(Engine):
    """Three completions at a time, each of its own text."""

    renders: ClassVar[bool] = True

    dies_after: int = 10**6

    def check(self) -> None:
        return

    def render(self, prompts: Sequence[SamplePrompt], thinking: bool) -> list[tuple[int, ...]]:
        return [(1,) for _ in prompts]

    def identity(self) -> dict[str, Any]:
        return {"engine": "Fixed"}

    def load(self) -> str:
        return ""

    def answers(
        self, requests: Sequence[Request], done: Collection[int], decoding: Decoding
    ) -> Iterator[list[tuple[int, Answer]]]:
        left = [place for place in range(len(requests)) if place not in done]
        for start in range(0, len(left), 3):
            if start >= self.dies_after:
                raise RuntimeError("the engine died")
            yield [(place, Answer(TEXTS[place % 4], True, 2)) for place in left[start : start + 3]]


@dataclass(frozen=True)
class Length(Scorer):
    """Letters of an answer."""

    name: str = "length"
    kind: str = "one"
    seen: list[list[Judged]] = field(default_factory=list, compare=False)

    def measures(self) -> Mapping[str, tuple[float, float]]:
        return {self.name: (0.0, math.inf)}

    def identity(self) -> dict[str, str | int]:
        return {"scorer": "Length", "kind": self.kind}

    def check(self) -> None:
        if self.kind == "broken":
            raise ValueError("the scorer is broken")

    def scores(
        self, answers: Sequence[Judged], device: torch.device, *, progress: str | None = None
    ) -> list[dict[str, float]]:
        assert device.type == "cpu"
        self.seen.append(list(answers))
        return [{self.name: float(len(one.answer))} for one in answers]


def sample(scorer: Scorer | None = None, **options: Any) -> Sample:
    settings = {"source": Prompts(), "engine": Fixed(), "out": "out.jsonl", "k": 2, "scorer_device": "cpu"}
    return Sample(**{**settings, "scorer": scorer, **options})


def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()]


def test_measures_stand_after_the_source_s_own_and_batches_are_scored_as_they_come() -> None:
    scorer = Length()
    sample(scorer, source=Prompts("mine")).run()
    assert [list(one["scores"].items()) for one in lines()][:2] == [
        [("mine", 1.0), ("length", 11.0)], [("mine", 1.0), ("length", 5.0)],
    ]  # fmt: skip
    assert [len(batch) for batch in scorer.seen] == [3, 3]
    assert scorer.seen[0][1] == Judged("a, sample 1", (Message("user", "Hi"),), "short", "gold")
    manifest = json.loads(Path("out.manifest.json").read_text(encoding="utf-8"))
    assert manifest["scorer"] == {"scorer": "Length", "kind": "one"}
    assert manifest["summary"]["scores"]["length"]["n"] == 6


def test_a_thought_is_kept_in_the_file_and_not_shown_to_the_scorer() -> None:
    scorer = Length()
    sample(scorer).run()
    assert [one["answer"] for one in lines()] == [*TEXTS, *TEXTS[:2]]
    shown = [one.answer for batch in scorer.seen for one in batch]
    assert shown == ["long answer", "short", "", "a", "long answer", "short"]


def test_what_the_scorer_could_not_score_is_refused_before_anything_is_drawn() -> None:
    class Unanswered(Prompts):
        def prompts(self, refuse: Callable[[str, ValueError], None] = stop_at) -> list[SamplePrompt]:
            return [*super().prompts(refuse), SamplePrompt("d", (Message("user", "Hi"),), "", "source", "", None)]

    with pytest.raises(ValueError, match=r"^d: has no reference answer"):
        sample(ReferenceScorer(), source=Unanswered()).run()
    assert list(Path().iterdir()) == []


def test_a_run_that_died_goes_on_to_the_same_file() -> None:
    sample(Length(), out="whole.jsonl").run()
    with pytest.raises(RuntimeError, match="the engine died"):
        sample(Length(), engine=Fixed(3)).run()
    sample(Length()).run()
    assert Path("out.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()


def test_a_reward_does_not_depend_on_where_a_run_was_killed(tmp_path: Path) -> None:
    scorer = RewardModelScorer(save_reward_model(tmp_path / "m"), dtype="float32")
    sample(scorer, out="whole.jsonl", k=8).run()
    for dies_after in (3, 6):  # the texts come again beside others
        with pytest.raises(RuntimeError, match="the engine died"):
            sample(scorer, engine=Fixed(dies_after), k=8).run()
    sample(replace(scorer), k=8).run()
    assert Path("out.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()


@pytest.mark.parametrize(("other", "said"), [(Length(kind="two"), "`scorer.kind` was"), (None, "`scorer.scorer` was")])
def test_another_scorer_is_another_run(other: Scorer | None, said: str) -> None:
    sample(Length()).run()
    with pytest.raises(ValueError, match=said):
        sample(other).run()


def test_a_measure_that_the_source_has_too_is_refused_before_anything_is_drawn() -> None:
    with pytest.raises(ValueError, match="`scorer` Length measures `length`, as the source's own metric does"):
        sample(Length(), source=Prompts("length")).run()
    assert not list(Path().iterdir())


def test_a_scorer_that_refuses_is_asked_first() -> None:
    with pytest.raises(ValueError, match="the scorer is broken"):
        sample(Length(kind="broken")).run()
    with pytest.raises(ValueError, match="`scorer_device` must be auto, cpu"):
        sample(Length(), scorer_device="gpu")
    assert not list(Path().iterdir())


def test_gold_answers_are_scored_alike_once_a_batch_and_written_to_each_line() -> None:
    scorer = Length()
    sample(scorer, source=Prompts("mine"), score_gold=True).run()
    assert [one["gold_scores"] for one in lines()] == [{"mine": 1.0, "length": 4.0}] * 6
    assert [[one.id for one in batch] for batch in scorer.seen] == [
        ["a, sample 0", "a, sample 1", "b, sample 0"], ["a, gold", "b, gold"],
        ["b, sample 1", "c, sample 0", "c, sample 1"], ["b, gold", "c, gold"],
    ]  # fmt: skip
    pairs = RejectedSamples("out.jsonl", worse_by="length").pairs(lambda _: True)
    assert [(pair.id, pair.chosen) for pair in pairs] == [("b", "gold")]  # the others' answers are longer
    with pytest.raises(ValueError, match="`score_gold` was True and is False"):
        sample(Length(), source=Prompts("mine")).run()


def test_gold_answers_that_are_not_there_or_that_nothing_scores_are_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="`score_gold` needs something that scores"):
        sample(score_gold=True).run()
    assert not list(Path().iterdir())


def test_best_of_samples_reads_the_reward_that_the_command_wrote(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "lit_align")
    words = ["--source=TableSkillItems", "--source.skills=[lookup]", "--source.n_per_skill=2", "--out=out.jsonl"]
    words += ["--k=3", "--sampling.temperature=1.5", "--max_new_tokens=6", "--engine=LocalEngine"]
    words += ["--engine.base=tiny-qwen3", "--engine.weights.dtype=float32", "--engine.device=cpu"]
    words += ["--scorer=RewardModelScorer", f"--scorer.path={save_reward_model(tmp_path / 'm')}"]
    assert main(["sample", *words, "--scorer.dtype=float32", "--scorer_device=cpu"]) == 0
    assert all(list(one["scores"]) == ["exact_match", "reward"] for one in lines())
    answers = {one["answer"]: one["scores"]["reward"] for one in lines() if one["finished"]}
    for pair in BestOfSamples("out.jsonl", score="reward").pairs(lambda _: True):
        assert answers[pair.chosen] > answers[pair.rejected]
