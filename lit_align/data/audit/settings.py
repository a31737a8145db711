"""The limits that data are held to, before and at the start of a run."""

from __future__ import annotations

from dataclasses import dataclass, fields

from lit_align.data.overlap import EvaluationSets


@dataclass(frozen=True)
class AuditSettings:
    """Limits on the data; the key ``audit:`` of a configuration. Null sets none.

    ``lit-align audit`` measures all of them and exits with 1 where one is broken. ``fit`` stops at its start at those
    that cost no further reading: ``max_cut``, ``max_leaked`` and ``max_longer``. ``data.lengths``, ``data.bad_rows``
    and ``data.mix`` have limits of their own, which the audit reports with these. Shares of a sample (``max_longer``,
    ``max_surface_accuracy``) break a limit where the whole 95 % interval lies beyond it.

    Args:
        max_cut: Share of a source's kept answers that have lost their end-of-turn token, in [0, 1]: a model that learns
            from many of them does not stop.
        max_repeated: Share of a source's training examples that repeat an earlier one to the token, in [0, 1].
        max_leaked: Share of the validation examples that training holds to the token, in [0, 1].
        max_longer: Share of a source's pairs whose chosen answer has more tokens than the rejected one, or fewer, in
            [0.5, 1]; pairs of one length count half. Beyond it length alone nearly tells which is preferred.
        max_near_repeated: As ``max_repeated``, of examples that are nearly the same and not of one group, in [0, 1].
        max_near_leaked: As ``max_leaked``, of examples that are nearly the same, in [0, 1].
        max_overlap: Share of a source's training examples that hold words of an evaluation set, in [0, 1]: of the
            benchmarks that the configuration names, and of ``against``.
        max_surface_accuracy: Accuracy with which a classifier that never sees the prompt tells chosen from rejected, in
            [0.5, 1]. At 1 a preference can be learned without reading what was asked. Where a form is what is preferred
            (a tone, a format), 1 is right.
        languages: Languages that answers may be in, as ISO 639-1 (``[ru, en]``); none allows all.
        max_other_language: Share of a source's answers in other languages than ``languages``, in [0, 1].
        max_emails: Share of a source's examples that hold an e-mail address, in [0, 1].
        max_secrets: Examples that hold a string in the form of a key or a password, >= 0.
        max_memory_gb: Estimated memory of the largest forest with the model, GiB, > 0.
        against: Further sets whose questions are to stay out of training, and what counts as a question.
        jaccard: From this share of common word 5-grams on two texts are nearly the same, in (0, 1].
        sample: Examples of a source and part, at random, whose texts are looked at, >= 1.
        shown: Examples of a source and part whose tokens are shown in colour, >= 0.

    Raises:
        ValueError: A value is out of its range.

    Example:
        >>> AuditSettings(max_longer=0.3)
        Traceback (most recent call last):
        ...
        ValueError: `audit.max_longer` must be in [0.5, 1] or null, got 0.3
    """

    max_cut: float | None = 0.5
    max_repeated: float | None = 0.2
    max_leaked: float | None = 0.0
    max_longer: float | None = 0.95
    max_near_repeated: float | None = 0.5
    max_near_leaked: float | None = 0.1
    max_overlap: float | None = 0.02
    max_surface_accuracy: float | None = 0.95
    languages: tuple[str, ...] = ()
    max_other_language: float | None = 0.1
    max_emails: float | None = 0.02
    max_secrets: int | None = 0
    max_memory_gb: float | None = None
    against: EvaluationSets | None = None
    jaccard: float = 0.8
    sample: int = 10_000
    shown: int = 2

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0.5 if field.name in ("max_longer", "max_surface_accuracy") else 0.0
            if field.type == "float | None" and field.name != "max_memory_gb":
                self._refuse(field.name, value is None or least <= value <= 1, f"in [{least:g}, 1] or null")
        self._refuse("max_secrets", self.max_secrets is None or self.max_secrets >= 0, ">= 0 or null")
        self._refuse("max_memory_gb", self.max_memory_gb is None or self.max_memory_gb > 0, "> 0 or null")
        self._refuse("jaccard", 0 < self.jaccard <= 1, "in (0, 1]")
        self._refuse("sample", self.sample >= 1, ">= 1")
        self._refuse("shown", self.shown >= 0, ">= 0")

    def _refuse(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise ValueError(f"`audit.{name}` must be {rule}, got {getattr(self, name)}")
