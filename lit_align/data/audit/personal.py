"""E-mail addresses, and strings in the form of keys and passwords; never shown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lit_align.data.audit.examples import Text
from lit_align.data.audit.settings import AuditSettings
from lit_align.data.audit.table import Cell, Check, Measured, Table

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}(?!\w)")
_SECRETS = {
    "private key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----(?:[\sA-Za-z0-9+/=]*(?:-----END[A-Z ]*-----)?)",
    "AWS key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,})",
    "Slack token": r"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    "Google key": r"\bAIza[0-9A-Za-z_-]{35}",
    "Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}",
    "sk- key": r"\b[sr]k[-_](?:live[-_]|test[-_]|proj-|ant-)?[A-Za-z0-9_-]{20,}",
    "JSON web token": r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    "URL with password": r"\b[a-z][a-z0-9+.-]{1,20}://[^\s:@/]{1,64}:[^\s:@/]{3,64}@[^\s/@]+",
    "assigned secret": (
        r"(?i)\b(?:api[_-]?key|secret(?:[_-]?key)?|access[_-]?token|auth[_-]?token|passw(?:or)?d)\b[\"']?\s{0,3}[:=]\s{0,3}"
        r"[\"']?(?=[^\s\"']*\d)(?=[^\s\"']*[A-Za-z])[^\s\"',;<>(){}]{8,}"
    ),
}
# Addresses last: `name:password@host` is none.
_PATTERNS = {**{kind: re.compile(pattern) for kind, pattern in _SECRETS.items()}, "e-mail": _EMAIL}


def masked(text: str) -> str:
    """A text in which addresses and secrets are replaced by what they are.

    Args:
        text: Any.

    Example:
        >>> masked("Write to anna@example.com, the key is AKIAIOSFODNN7EXAMPLE.")
        'Write to [e-mail], the key is [AWS key].'
    """
    return _hidden(text)[0]


def kinds_in(text: str) -> set[str]:
    """Which of them a text holds.

    Args:
        text: Any.

    Example:
        >>> kinds_in("password: hunter22222"), kinds_in("The password: is it long?")
        ({'assigned secret'}, set())
    """
    return _hidden(text)[1]


def _hidden(text: str) -> tuple[str, set[str]]:
    found = set()
    for kind, pattern in _PATTERNS.items():
        text, number = pattern.subn(f"[{kind}]", text)
        if number:
            found.add(kind)
    return text, found


def personal_data(texts: Sequence[Text], settings: AuditSettings) -> Measured:
    """Examples that hold an e-mail address or a secret.

    Args:
        texts: The examples.
        settings: The limits.
    """
    rows: list[tuple[Cell, ...]] = []
    checks = []
    found: dict[tuple[str, str], list[tuple[str, set[str], str]]] = {}
    sizes: dict[tuple[str, str], int] = {}
    for text in texts:
        one = text.example
        key = (one.part, one.source)
        sizes[key] = sizes.get(key, 0) + 1
        whole = "\n".join((*text.turns, *text.answers))
        if kinds := kinds_in(whole):
            found.setdefault(key, []).append((one.id, kinds, whole))
    for (part, source), n in sizes.items():
        hits = found.get((part, source), [])
        emails = sum("e-mail" in kinds for _, kinds, _ in hits)
        secrets = [hit for hit in hits if hit[1] - {"e-mail"}]
        such = "; ".join(f"{name}: {_around(whole)}" for name, _, whole in (secrets or hits)[:2])
        rows.append((part, source, n, emails, emails / n, len(secrets), such))
        where = f"{part}: {source}"
        if settings.max_emails is not None:
            advice = "replace the addresses, or drop the rows; a model repeats what it was trained on"
            checks.append(Check("audit.max_emails", where, emails / n, settings.max_emails, advice))
        if settings.max_secrets is not None:
            names = ", ".join(f"{name} ({', '.join(sorted(kinds - {'e-mail'}))})" for name, kinds, _ in secrets[:3])
            advice = f"drop the rows, and revoke what is real: {names}"
            checks.append(Check("audit.max_secrets", where, len(secrets), settings.max_secrets, advice))
    about = (
        f"Examples (up to {settings.sample} of a source) that hold an e-mail address, or a string in the form of a "
        "key, token or password. What is found is masked here."
    )
    columns = ("part", "source", "looked at", "with e-mail", "with e-mail, share", "with secret", "such as")
    return Measured((Table("personal data", about, columns, tuple(rows)),), tuple(checks))


def _around(text: str) -> str:
    """The words around the first find, masked."""
    hidden = " ".join(masked(text).split())
    start = min(place for kind in _PATTERNS if (place := hidden.find(f"[{kind}]")) >= 0)
    return f"… {hidden[max(0, start - 25) : start + 45]} …"
