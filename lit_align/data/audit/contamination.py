"""Training examples that hold words of an evaluation set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from tqdm import tqdm

from lit_align.data.audit.examples import Text
from lit_align.data.audit.settings import AuditSettings
from lit_align.data.audit.table import Cell, Check, Measured, Table
from lit_align.data.overlap import EvaluationSets, OverlapIndex
from lit_align.types import SamplePrompt


def contamination(
    texts: Sequence[Text], asked: Mapping[str, Sequence[SamplePrompt]], settings: AuditSettings
) -> Measured:
    """Training and replayed examples that share words with questions of evaluation sets.

    Args:
        texts: Examples; those of validation are passed over.
        asked: The questions of the benchmarks, by name.
        settings: The limits, and further sets.

    Raises:
        FileNotFoundError: A file of ``audit.against`` is not there.
        OSError: The hub cannot be reached.
        ValueError: A row of it breaks a rule.
    """
    numbers = settings.against or EvaluationSets
    sets = {name: list(prompts) for name, prompts in asked.items()}
    if settings.against is not None:
        sets |= {name: source.prompts() for name, source in settings.against.sets.items()}
    sets = {name: prompts for name, prompts in sets.items() if prompts}
    if not sets:
        return Measured()
    index = OverlapIndex(sets, numbers.n, numbers.shortest_line, numbers.common)
    sizes = Counter[tuple[str, str]]()
    hits: dict[tuple[str, str], Counter[str]] = {}
    shown: dict[tuple[str, str, str], str] = {}
    for text in tqdm(texts, desc="looking for evaluation questions", delay=2, leave=False, unit=" examples"):
        one = text.example
        if one.part == "validation":
            continue
        key = (one.part, one.source)
        sizes[key] += 1
        found = index.find((*text.turns, *text.answers))
        hits.setdefault(key, Counter()).update({"": bool(found)})
        for overlap in found:
            hits[key][overlap.name] += 1
            shown.setdefault((*key, overlap.name), f"{one.id} says {overlap.words!r} as {overlap.item}")
    rows: list[tuple[Cell, ...]] = []
    checks = []
    for (part, source), n in sizes.items():
        for name in sets:
            number = hits[part, source][name]
            rows.append(
                (part, source, n, name, len(sets[name]), number, number / n, shown.get((part, source, name), ""))
            )
        if settings.max_overlap is not None:
            such = next((told for key, told in shown.items() if key[:2] == (part, source)), "")
            advice = f"wrap the source in DecontaminatedPairs or DecontaminatedConversations: {such}"
            share = hits[part, source][""] / n
            checks.append(Check("audit.max_overlap", f"{part}: {source}", share, settings.max_overlap, advice))
    about = (
        f"Examples with {numbers.n} words in a row, or a whole line of at least {numbers.shortest_line} words, of a "
        f"question, unless more than {numbers.common} groups of the set say it."
    )
    columns = ("part", "source", "looked at", "set", "questions", "overlaps", "overlaps, share", "such as")
    return Measured((Table("evaluation sets", about, columns, tuple(rows)),), tuple(checks))
