"""Sampling as a whole, with an engine that answers at once: what is asked, written, gone on with and refused."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lit_align.commands.engines import Answer, Decoding, Engine, Request
from lit_align.commands.sample import Sample
from lit_align.commands.sample_file import SampleFile
from lit_align.commands.sole_writer import sole_writer
from lit_align.evals.sampling import Sampling
from lit_align.types import Message, PromptSource, SamplePrompt, stop_at

OUT = "out.jsonl"


def prompt(name: str, text: str = "Hi", score: Any = None) -> SamplePrompt:
    return SamplePrompt(name, (Message("system", "Be brief."), Message("user", text)), "gold", "source", "group", score)


@dataclass(frozen=True)
class Prompts(PromptSource):
    held: tuple[SamplePrompt, ...] = (prompt("a"), prompt("b", "How are you?"), prompt("c"))

    def prompts(self, refuse: Callable[[str, ValueError], None] = stop_at) -> list[SamplePrompt]:
        del refuse
        return list(self.held)


@dataclass(frozen=True)
class Echo(Engine):
    """Answers with what it was asked, three at a time, the last ones first; one token a letter."""

    renders: ClassVar[bool] = True

    name: str = "echo"
    dies_after: int = 10**6
    asked: list[tuple[str, int]] = field(default_factory=list, compare=False)

    def check(self) -> None:
        return

    def render(self, prompts: Sequence[SamplePrompt], thinking: bool) -> list[tuple[int, ...]]:
        return [tuple(map(ord, one.messages[-1].content)) for one in prompts]

    def identity(self) -> dict[str, Any]:
        return {"engine": "Echo", "adapters": [{"digest": self.name}]}

    def load(self) -> str:
        return "weights"

    def answers(
        self, requests: Sequence[Request], done: Collection[int], decoding: Decoding
    ) -> Iterator[list[tuple[int, Answer]]]:
        places = [place for place in reversed(range(len(requests))) if place not in done]
        for start in range(0, len(places), 3):
            if len(self.asked) >= self.dies_after:
                raise RuntimeError("the engine died")
            batch = places[start : start + 3]
            self.asked.extend((requests[place].prompt.id, requests[place].number) for place in batch)
            yield [(place, _echo(requests[place], decoding)) for place in batch]


def _echo(request: Request, decoding: Decoding) -> Answer:
    text = f"{request.prompt.messages[-1].content} {decoding.seed} {request.number}"
    return Answer(text, request.number != 1, len(request.tokens))


def sample(engine: Engine | None = None, source: PromptSource | None = None, **options: Any) -> Sample:
    return Sample(source or Prompts(), engine or Echo(), **{"out": OUT, "k": 2, **options})


def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(OUT).read_text(encoding="utf-8").splitlines()]


def manifest() -> dict[str, Any]:
    held: dict[str, Any] = json.loads(Path("out.manifest.json").read_text(encoding="utf-8"))
    return held


def names() -> set[str]:
    return {path.name for path in Path().iterdir()}


def test_a_line_holds_prompt_answer_and_scores_in_a_fixed_order() -> None:
    def score(answer: str) -> Mapping[str, float]:
        return {"right": answer.endswith("1"), "length": len(answer)}

    sample(source=Prompts((prompt("b", score=score), prompt("a"))), seed=7).run()
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert lines()[1] == {
        "id": "b", "sample": 1, "source": "source", "group": "group", "prompt": turns, "gold": "gold",
        "answer": "Hi 7 1", "finished": False, "tokens": 2, "scores": {"right": 1.0, "length": 6.0},
    }  # fmt: skip
    assert [(one["id"], one["sample"]) for one in lines()] == [("b", 0), ("b", 1), ("a", 0), ("a", 1)]
    assert lines()[2]["scores"] == {}
    assert manifest()["summary"] == {
        "n": 4, "unfinished": 0.5, "tokens": 2.0,
        "scores": {"right": {"mean": 0.5, "n": 2}, "length": {"mean": 6.0, "n": 2}},
    }  # fmt: skip


def test_the_manifest_says_what_was_drawn_with_what() -> None:
    sample(sampling=Sampling(0.5, 0.9, 7), seed=3, max_new_tokens=5, thinking=True).run()
    told = manifest()
    assert told["engine"] == "Echo"
    assert told["base_fingerprint"] == "weights"
    assert told["sampling"] == {"temperature": 0.5, "top_p": 0.9, "top_k": 7}
    assert (told["k"], told["seed"], told["max_new_tokens"], told["thinking"]) == (2, 3, 5, True)
    assert told["prompts"]["n"] == 3
    [run] = told["runs"]
    assert {"torch", "transformers"} <= set(run["packages"])
    assert run["command"].startswith("lit-align")
    assert "Echo(" in run["engine"]


def test_a_run_that_died_goes_on_without_gap_or_duplicate(caplog: pytest.LogCaptureFixture) -> None:
    sample(out="whole.jsonl").run()
    caplog.set_level(logging.INFO, "lit_align")
    first = Echo(dies_after=3)
    with pytest.raises(RuntimeError, match="the engine died"):
        sample(first).run()
    assert "3 of 6 completions are saved in out.jsonl.part; the same command goes on from there" in caplog.text
    assert {"out.jsonl.part", "out.manifest.json"} < names()
    assert OUT not in names()
    second = Echo()
    sample(second).run()
    assert sorted(first.asked + second.asked) == [(name, number) for name in "abc" for number in (0, 1)]
    assert Path(OUT).read_bytes() == Path("whole.jsonl").read_bytes()
    assert len(manifest()["runs"]) == 2
    assert "out.jsonl.part" not in names()


def test_what_is_finished_is_not_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    sample().run()
    before = {name: Path(name).read_bytes() for name in names()}
    caplog.set_level(logging.INFO, "lit_align")
    engine = Echo()
    Path("out.jsonl.part").write_bytes(Path(OUT).read_bytes())  # as a kill just before the end leaves it
    sample(engine).run()
    assert not engine.asked
    assert "all 6 completions are there already" in caplog.text
    assert {name: Path(name).read_bytes() for name in names()} == before


@pytest.mark.parametrize("begun", [False, True], ids=["finished", "in the middle"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"k": 3}, "`k` was 2 and is 3"),
        ({"seed": 1}, "`seed` was 0 and is 1"),
        ({"sampling": Sampling(0.5)}, "`sampling.temperature` was 1.0 and is 0.5"),
        ({"max_new_tokens": 9}, "`max_new_tokens` was 256 and is 9"),
        ({"thinking": True}, "`thinking` was False and is True"),
        ({"limit": 2}, "`prompts.n` was 3 and is 2"),
        ({"engine": Echo("other")}, "`adapters.0.digest` was 'echo' and is 'other'"),
        ({"source": Prompts((prompt("a"), prompt("b"), prompt("c")))}, "`prompts.fingerprint` was "),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_file_of_other_settings_is_left_as_it_is(options: dict[str, Any], said: str, begun: bool) -> None:
    if begun:
        with pytest.raises(RuntimeError, match="died"):
            sample(Echo(dies_after=3)).run()
    else:
        sample().run()
    before = {name: Path(name).read_bytes() for name in names()}
    with pytest.raises(ValueError, match=r"drawn with other settings.*name another `out`, or delete") as told:
        sample(**options).run()
    assert said in str(told.value)
    assert {name: Path(name).read_bytes() for name in names()} == before


def test_two_processes_do_not_write_one_file() -> None:
    with sole_writer(Path(OUT)), pytest.raises(BlockingIOError, match=r"another process is writing out\.jsonl"):
        sample().run()
    sample().run()


def test_an_interrupt_keeps_what_is_there_and_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    append = SampleFile.append

    def interrupted(file: SampleFile, batch: Sequence[dict[str, Any]]) -> None:
        append(file, batch)
        raise KeyboardInterrupt

    caplog.set_level(logging.INFO, "lit_align")
    with monkeypatch.context() as patch:
        patch.setattr(SampleFile, "append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sample().run()
    assert "3 of 6 completions are saved" in caplog.text
    engine = Echo()
    sample(engine).run()
    assert len(engine.asked) == 3
    assert len(lines()) == 6


def test_after_a_full_disk_the_same_command_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    sample(out="whole.jsonl").run()
    writes = iter(range(2))  # the manifest and the first batch

    def fsync(_: int) -> None:
        if next(writes, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fsync)
        with pytest.raises(OSError, match=r"out.jsonl.part could not be written \(No space left on device\)"):
            sample().run()
    assert Path("out.jsonl.part").read_bytes().count(b"\n") == 3
    engine = Echo()
    sample(engine).run()
    assert len(engine.asked) == 3
    assert Path(OUT).read_bytes() == Path("whole.jsonl").read_bytes()


def test_prompts_that_are_too_long_are_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lit_align")
    sample(max_prompt_length=5).run()
    assert {one["id"] for one in lines()} == {"a", "c"}
    assert "2 prompts, 2 completions each; 1 over max_prompt_length = 5 left out" in caplog.text
    assert manifest()["prompts"]["too_long"] == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"k": 0}, "`k` must be at least 1, got 0"),
        ({"seed": -1}, "`seed` must be >= 0, got -1"),
        ({"max_new_tokens": 0}, "`max_new_tokens` must be at least 1, got 0"),
        ({"max_prompt_length": -1}, "`max_prompt_length` must be >= 0, got -1"),
        ({"limit": 0}, "`limit` must be at least 1 or null, got 0"),
        ({"out": "out.json"}, "`out` must be a name.jsonl, got 'out.json'"),
        ({"out": "folder/.jsonl"}, "`out` must be a name.jsonl, got 'folder/.jsonl'"),
        ({"sampling": Sampling(0.0)}, "`k` = 2 with `sampling.temperature` = 0: all would be the same"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_value_out_of_its_range_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=r"must be|would be") as told:
        sample(**options)
    assert said in str(told.value)


ANSWERED = SamplePrompt("x", (Message("user", "Hi"), Message("assistant", "Hi")), "", "source")


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        (Prompts(()), {}, "has no prompts: nothing to answer"),
        (Prompts((prompt("a"), prompt("a"))), {}, "has two prompts with the id 'a'"),
        (Prompts((prompt("a"), ANSWERED)), {}, "prompt 'x' must end with a user turn, not with assistant's"),
        (Prompts((SamplePrompt("x", (), "", "source"),)), {}, "prompt 'x' must end with a user turn, not without any"),
        (Prompts(), {"max_prompt_length": 1}, "all 3 prompts are over `max_prompt_length` = 1 tokens, the shortest "),
    ],
    ids=["none", "twice", "answered", "empty", "too long"],
)
def test_prompts_that_cannot_be_answered_are_refused_before_a_file_is_made(
    source: PromptSource, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match="prompt") as told:
        sample(source=source, **options).run()
    assert said in str(told.value)
    assert names() == set()


def test_a_folder_in_the_place_of_the_file_is_refused() -> None:
    Path(OUT).mkdir()
    with pytest.raises(ValueError, match=r"`out` out\.jsonl is a folder; name a file"):
        sample().run()


def test_a_folder_that_cannot_be_written_is_named_before_weights_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").write_text("x", encoding="utf-8")
    monkeypatch.setattr(Echo, "load", lambda _: pytest.fail("weights were read"))
    with pytest.raises(OSError, match=r"file.out\.jsonl cannot be written"):
        sample(out="file/out.jsonl").run()
