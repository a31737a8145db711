"""Examples that are the same to the token: within a source, and on both sides of the split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from lit_align.data.audit.examples import Example
from lit_align.data.audit.settings import AuditSettings
from lit_align.data.audit.table import Cell, Check, Measured, Table
from lit_align.data.lengths import prompt_size
from lit_align.forest import TokenPath


@dataclass
class _Count:
    n: int = 0
    repeats: int = 0
    elsewhere: int = 0
    leaked: int = 0
    prompts: int = 0
    shown: list[str] = field(default_factory=list)


def exact_repeats(every: Iterable[Example], settings: AuditSettings) -> Measured:
    """Examples that repeat others to the token, and validation examples that training holds.

    Args:
        every: All examples, those of training before those of validation.
        settings: The limits.
    """
    counts: dict[tuple[str, str], _Count] = {}
    first: dict[tuple[str, bytes], Example] = {}  # by part and tokens
    prompts: set[bytes] = set()  # of training
    for one in every:
        count = counts.setdefault((one.part, one.source), _Count())
        count.n += 1
        whole = _digest(one.paths)
        earlier = first.setdefault((one.part, whole), one)
        if earlier is not one:
            count.repeats += earlier.source == one.source
            count.elsewhere += earlier.source != one.source
            count.shown.append(f"{one.id} = {earlier.id}")
        prompt = _digest([_prompt(one.paths[0])])
        if one.part == "training":
            prompts.add(prompt)
        elif one.part == "validation":
            trained = first.get(("training", whole))
            count.leaked += trained is not None
            count.prompts += prompt in prompts
            if trained is not None:
                count.shown.insert(0, f"{one.id} = {trained.id} (trained)")
    rows: list[tuple[Cell, ...]] = []
    for (part, source), count in counts.items():
        validation = part == "validation"
        leaked, prompts_trained = (count.leaked, count.prompts) if validation else (None, None)
        shown = "; ".join(count.shown[:3])
        share = count.repeats / count.n
        rows.append((part, source, count.n, count.repeats, share, count.elsewhere, leaked, prompts_trained, shown))
    about = (
        "Same prompt and same answer (of a pair: both answers), token by token: as an earlier example of the source, "
        "of another source of the part, or, of validation, as a trained one; and validation prompts that training "
        "holds with whatever answer."
    )
    columns = (
        "part", "source", "n", "repeats", "repeats, share", "in another source", "trained too", "prompt trained too",
        "such as",
    )  # fmt: skip
    return Measured((Table("repeats", about, columns, tuple(rows)),), tuple(_checks(counts, settings)))


def _checks(counts: dict[tuple[str, str], _Count], settings: AuditSettings) -> Iterable[Check]:
    for (part, source), count in counts.items():
        such = f", such as {count.shown[0]}" if count.shown else ""
        if part == "training" and settings.max_repeated is not None:
            advice = f"take the copies out{such}, or raise it where they are meant as a weight"
            yield Check(
                "audit.max_repeated", f"{part}: {source}", count.repeats / count.n, settings.max_repeated, advice
            )
        if part == "validation" and settings.max_leaked is not None:
            advice = (
                f"{count.leaked} of {count.n} validation examples are trained{such}: take them out of "
                "`data.val_sources`; where a cut made them alike, raise `data.lengths.max_length`"
            )
            yield Check("audit.max_leaked", f"{part}: {source}", count.leaked / count.n, settings.max_leaked, advice)


def _prompt(path: TokenPath) -> TokenPath:
    end = prompt_size(path)
    return TokenPath(path.tokens[:end], path.classes[:end], path.example)


def _digest(paths: Sequence[TokenPath]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        digest.update(len(path.tokens).to_bytes(8, "little") + path.tokens.tobytes())
    return digest.digest()
