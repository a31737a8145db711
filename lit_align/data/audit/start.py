"""The part of the audit that costs no further reading: ``fit`` makes it at its start."""

from __future__ import annotations

from lit_align.data.audit.counts import token_classes
from lit_align.data.audit.examples import examples
from lit_align.data.audit.longer import length_bias
from lit_align.data.audit.repeats import exact_repeats
from lit_align.data.audit.settings import AuditSettings
from lit_align.data.audit.table import Measured, joined
from lit_align.data.window_module import PlannedDataModule
from lit_align.tokenizer import end_of_turn_ids


class FailedAuditError(ValueError):
    """The data break a limit; the message names each, the number found, and what to do."""


def token_measures(data: PlannedDataModule, settings: AuditSettings) -> Measured:
    """What tokens alone tell: cut answers, wrong classes, exact repeats within and across the split, length bias.

    Args:
        data: A data module that is set up.
        settings: The limits.
    """
    end = end_of_turn_ids(data.chat.tokenizer)[0]
    lost = {}
    for name, report in data.reports.items():
        stage, _, part = name.rpartition("/")
        for source, number in report.lost_tokens.items():
            lost[part, f"{stage}/{source}" if stage else source] = number
    return joined((
        token_classes(examples(data), lost, end, settings),
        exact_repeats(examples(data), settings),
        length_bias(examples(data), settings),
    ))  # fmt: skip


def refuse_unsound(data: PlannedDataModule, settings: AuditSettings) -> None:
    """Stop at data that break a limit which tokens alone can tell.

    Args:
        data: A data module that is set up.
        settings: The limits.

    Raises:
        FailedAuditError: A limit is broken.
    """
    if failed := [check for check in token_measures(data, settings).failed if check.limit != "audit.max_repeated"]:
        raise FailedAuditError(f"{'; '.join(map(str, failed))}; `lit-align audit` with the same file shows more")
