"""Training examples that hold questions of an evaluation set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tqdm import tqdm

from lit_align.data.audit.examples import Text
from lit_align.data.audit.near import Neighbours, Sketch
from lit_align.data.audit.settings import AuditSettings
from lit_align.data.audit.table import Cell, Check, Measured, Table
from lit_align.data.overlap import EvaluationSets, OverlapIndex
from lit_align.types import Message, SamplePrompt


@dataclass(frozen=True)
class Asked:
    """What a benchmark asks.

    Attributes:
        prompts: Its prompts.
        published: Whether it is a set of its own; one that is split off a training source shares its wording.
    """

    prompts: Sequence[SamplePrompt]
    published: bool


def contamination(texts: Sequence[Text], asked: Mapping[str, Asked], settings: AuditSettings) -> Measured:
    """Training and replayed examples that share words with published questions, or nearly are prompts of a benchmark.

    Words are looked for as :class:`~lit_align.data.overlap.OverlapIndex` does, but line by line of a question: its
    wording around a table does not join with the table. A benchmark that is split off a training source shares its
    wording with it by design; of it, as of all others, whole last turns that are nearly the same are looked for.

    Args:
        texts: Examples; those of validation are passed over.
        asked: The benchmarks by name.
        settings: The limits, and further sets.

    Raises:
        FileNotFoundError: A file of ``audit.against`` is not there.
        OSError: The hub cannot be reached.
        ValueError: A row of it breaks a rule.
    """
    sets = dict(asked)
    if settings.against is not None:
        sets |= {name: Asked(source.prompts(), True) for name, source in settings.against.sets.items()}
    sets = {name: one for name, one in sets.items() if one.prompts}
    if not sets:
        return Measured()
    numbers = settings.against or EvaluationSets
    published = {name: [*_by_line(one.prompts)] for name, one in sets.items() if one.published}
    words = OverlapIndex(published, numbers.n, numbers.shortest_line, numbers.common)
    prompts = {name: Neighbours[str](settings.jaccard) for name in sets}
    for name, one in sets.items():
        for prompt in one.prompts:
            prompts[name].add(prompt.id, Sketch.of(prompt.messages[-1].content))
    counts: dict[tuple[str, str], dict[str, int]] = {}
    shown: dict[tuple[str, str, str], str] = {}
    for text in tqdm(texts, desc="looking for evaluation questions", delay=2, leave=False, unit=" examples"):
        one = text.example
        if one.part == "validation" or not text.turns:
            continue
        found = {
            overlap.name: f"{one.id} says {overlap.words!r} as {overlap.item}"
            for overlap in words.find((*text.turns, *text.answers))
        }
        sketch = Sketch.of(text.turns[-1])
        for name, neighbours in prompts.items():
            if name not in found and (near := neighbours.nearest(sketch)):
                found[name] = f"{one.id} ~ {near[0]} ({near[1]:.2f})"
        count = counts.setdefault((one.part, one.source), {"": 0, "any": 0, **dict.fromkeys(sets, 0)})
        count[""] += 1
        count["any"] += bool(found)
        for name, told in found.items():
            count[name] += 1
            shown.setdefault((one.part, one.source, name), told)
    rows: list[tuple[Cell, ...]] = []
    checks = []
    for (part, source), count in counts.items():
        n = count[""]
        for name, one in sets.items():
            such = shown.get((part, source, name), "")
            rows.append((part, source, n, name, len(one.prompts), count[name], count[name] / n, such))
        if settings.max_overlap is not None:
            such = next((told for key, told in shown.items() if key[:2] == (part, source)), "")
            advice = f"wrap the source in DecontaminatedPairs or DecontaminatedConversations: {such}"
            checks.append(
                Check("audit.max_overlap", f"{part}: {source}", count["any"] / n, settings.max_overlap, advice)
            )
    about = (
        f"Examples with {numbers.n} words in a row, or a whole line of at least {numbers.shortest_line} words, of a "
        f"published question, unless more than {numbers.common} groups of the set say it; or whose last turn nearly "
        "is a prompt of the set."
    )
    columns = ("part", "source", "looked at", "set", "questions", "overlaps", "overlaps, share", "such as")
    return Measured((Table("evaluation sets", about, columns, tuple(rows)),), tuple(checks))


def _by_line(prompts: Sequence[SamplePrompt]) -> Iterator[SamplePrompt]:
    for one in prompts:
        lines = [Message(turn.role, line) for turn in one.messages for line in turn.content.splitlines()]
        yield replace(one, messages=tuple(lines), group=one.group or one.id)
