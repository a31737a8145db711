"""Which languages the answers are in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tqdm import tqdm

from lit_align.data.audit.examples import Text
from lit_align.data.audit.settings import AuditSettings
from lit_align.data.audit.table import Cell, Check, Measured, Table
from lit_align.metrics.language import language_of

_FEWEST_LETTERS = 20  # of a word or two no detector is to be believed
_SHOWN = 4


def languages(texts: Sequence[Text], settings: AuditSettings) -> Measured:
    """Share of each language among the answers.

    Args:
        texts: The examples; of a pair the chosen answer counts.
        settings: The limits.
    """
    counts: dict[tuple[str, str], Counter[str]] = {}
    first: dict[tuple[str, str], str] = {}
    for text in tqdm(texts, desc="detecting languages", delay=2, leave=False, unit=" answers"):
        one, answer = text.example, text.answers[0]
        sure = sum(map(str.isalpha, answer)) >= _FEWEST_LETTERS
        language = language_of(answer) if sure else ""
        counts.setdefault((one.part, one.source), Counter())[language] += 1
        if language and settings.languages and language not in settings.languages:
            first.setdefault((one.part, one.source), f"{one.id} ({language})")
    rows: list[tuple[Cell, ...]] = []
    checks = []
    for (part, source), count in counts.items():
        short = count.pop("", 0)
        told = ", ".join(f"{language} {number / count.total():.1%}" for language, number in count.most_common(_SHOWN))
        rows.append((part, source, count.total(), told or "none", short))
        if settings.languages and settings.max_other_language is not None and count:
            others = sum(number for language, number in count.items() if language not in settings.languages)
            advice = (
                f"answers in other languages than {', '.join(settings.languages)}"
                f"{', such as ' + first[part, source] if others else ''}: take them out, or add to `audit.languages`"
            )
            share = others / count.total()
            checks.append(
                Check("audit.max_other_language", f"{part}: {source}", share, settings.max_other_language, advice)
            )
    about = f"By py3langid, of (chosen) answers with at least {_FEWEST_LETTERS} letters."
    columns = ("part", "source", "answers", "languages", "too short to tell")
    return Measured((Table("languages", about, columns, tuple(rows)),), tuple(checks))
