"""What a stage of a progressive run trains with, what it is compared with, and when it counts as passed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, get_args

from lit_align.losses.preference.contract import PreferenceLoss
from lit_align.models.loading import LoRA
from lit_align.schedule import Schedule

Earlier = Literal["base", "start", "previous"]
"""An earlier policy: the bare base, that with which the fit began, or that at the end of the stage before."""

OnFailure = Literal["stop", "back", "go_on"]
"""What a gate does that is not passed; the first of these goes before the others."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Gate:
    """What a stage must show at its end, on the items of a benchmark: a paired difference beyond doubt.

    The difference is that of the stage's end less the earlier policy, paired by item and clustered
    (:func:`~lit_align.metrics.statistics.paired_summary`). The gate is passed where its whole interval lies on the
    right side: its lower end at ``min_difference`` or above, or its upper end at ``max_difference`` or below. So a
    gate that asks for a gain fails where the items are too few to show one, and one that allows a small loss
    (``min_difference: -0.02``) passes where a larger one is ruled out.

    Attributes:
        metric: Name of a benchmark and of its measure, ``tables/exact_match``; a benchmark of
            ``trainer.callbacks`` must have it.
        against: The earlier policy: ``base``, ``start`` (of the fit), or ``previous``, the end of the stage before.
        on_failure: ``stop`` ends the run; ``back`` drops what the stage has learned and goes on with the next one from
            where this one started; ``go_on`` says so and goes on.
        min_difference: Smallest difference, in units of the measure, where more is better; null if ``max_difference``
            is given.
        max_difference: Largest difference, where less is better.
        confidence: Coverage of the two-sided interval, in (0, 1).

    Raises:
        ValueError: None or both of the bounds are given, or ``confidence`` is out of its range.

    Example:
        >>> Gate("tables/exact_match", against="base", on_failure="stop")
        Traceback (most recent call last):
        ...
        ValueError: gate on tables/exact_match: give `min_difference` or `max_difference`, got None and None
    """

    metric: str
    against: Earlier
    on_failure: OnFailure
    min_difference: float | None = None
    max_difference: float | None = None
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if (self.min_difference is None) == (self.max_difference is None):
            raise ValueError(
                f"gate on {self.metric}: give `min_difference` or `max_difference`, got {self.min_difference} and "
                f"{self.max_difference}"
            )
        if not 0 < self.confidence < 1:
            raise ValueError(f"gate on {self.metric}: `confidence` must be in (0, 1), got {self.confidence}")


@dataclass(frozen=True)
class Stage:
    """One stage of a progressive run; what it trains on is in ``data.stages``, under the same name.

    Attributes:
        name: Letters, digits, ``_`` and ``-``; names the stage's folder, its random numbers and its lines in the log.
        reference: What the loss compares with: ``base``, ``start`` (the policy with which the fit began), or
            ``previous``, the end of the stage before, which the first stage does not have.
        loss: The loss of a pair; null takes ``model.loss``.
        lr: Learning rate, > 0; null takes that of ``model.optimizer``.
        schedule: Factor of the learning rate over the stage's own windows; null takes ``model.schedule``.
        lora: A new adapter of this shape on top of the earlier ones, which stay as they are. Null goes on training the
            adapter of the stage before; in the first stage, the one that ``model`` starts with.
        gates: What the stage must show at its end; of several that fail, ``stop`` goes before ``back`` before
            ``go_on``.

    Raises:
        ValueError: A name or a learning rate is out of its range.

    Example:
        >>> Stage("stage 1", reference="base")
        Traceback (most recent call last):
        ...
        ValueError: stage 'stage 1': a name has letters, digits, `_` and `-` alone
    """

    name: str
    reference: Earlier
    loss: PreferenceLoss | None = None
    lr: float | None = None
    schedule: Schedule | None = None
    lora: LoRA | None = None
    gates: tuple[Gate, ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"stage {self.name!r}: a name has letters, digits, `_` and `-` alone")
        if self.name in get_args(Earlier):
            raise ValueError(f"stage {self.name!r}: that is what an earlier policy is called; choose another name")
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise ValueError(f"stage {self.name!r}: `lr` must be > 0, got {self.lr}")

    @property
    def adapter(self) -> str:
        """Name of the adapter that the stage leaves in the policy; no part of a parameter's name is like it."""
        return f"stage-{self.name}"

    def identity(self) -> dict[str, str]:
        """What a resumed run must share once the stage has begun, as text by key."""
        return {f"stages.{self.name}.{field.name}": repr(getattr(self, field.name)) for field in fields(self)[1:]}


def refuse_stages(stages: Sequence[Stage]) -> None:
    """Refuse a list of stages that cannot be run in order.

    Raises:
        ValueError: There is none; two have one name; or the first one names the stage before.

    Example:
        >>> refuse_stages([Stage("general", reference="previous")])
        Traceback (most recent call last):
        ...
        ValueError: stage 'general' is the first and has no stage before it: `reference: previous` must be base or start
    """
    if not stages:
        raise ValueError("`stages` is empty: name at least one")
    refuse_repeated_names([stage.name for stage in stages])
    first = stages[0]
    options = [("reference", first.reference), *(("gates.against", gate.against) for gate in first.gates)]
    for option, value in options:
        if value == "previous":
            raise ValueError(
                f"stage {first.name!r} is the first and has no stage before it: `{option}: previous` must be base or "
                "start"
            )


def refuse_repeated_names(names: Sequence[str]) -> None:
    """Refuse two stages of one name.

    Raises:
        ValueError: Says which.
    """
    [(name, times)] = Counter(names).most_common(1)
    if times > 1:
        raise ValueError(f"`stages`: {times} stages are named {name!r}; give each a name of its own")


def refuse_coupled_dropout(loss: PreferenceLoss, lora: LoRA) -> None:
    """Refuse dropout under a loss that couples pairs.

    Raises:
        ValueError: Names both.
    """
    if loss.couples_pairs and lora.dropout:
        raise ValueError(
            f"`lora.dropout` = {lora.dropout}: {type(loss).__name__} couples the pairs of a window, which are passed "
            "twice, and dropout would be drawn anew: set it to 0 or take a loss of single pairs"
        )
