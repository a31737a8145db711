"""Numbers as tables and spans write them."""

from __future__ import annotations

import re
from dataclasses import dataclass

# What stands around the digits of a cell: "$", "US$ ", "(", "%", " million". Footnote marks such as "(1)" after a
# text are no number, since a cell must be a number as a whole.
_DRESSED = re.compile(
    r"""(?P<before>[^\w.]*(?:US|S|A|C|HK|USD|RMB|EUR)?[\s$£€¥(–—−+-]*)
        (?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)
        (?P<after>\s*[)%\s.]*(?:\s*(?:million|billion|thousand|percent|%))?[)%\s.]*)""",
    re.VERBOSE,
)
YEAR = re.compile(r"\b(?:19|20)\d\d\b")


@dataclass(frozen=True)
class DressedNumber:
    """A number with what is written around it.

    Attributes:
        value: The number; negative in brackets or after a minus. A percent sign is not read into it.
        before: What stands before the digits.
        digits: The digits with their commas.
        after: What stands after them.
    """

    value: float
    before: str
    digits: str
    after: str

    @property
    def percent(self) -> bool:
        """Whether a percent sign stands with it."""
        return "%" in self.before + self.after

    @property
    def decimals(self) -> int:
        """Digits after the point."""
        return len(self.digits.partition(".")[2])


def read_number(text: str) -> DressedNumber | None:
    """Read a text that is a number as a whole.

    Args:
        text: A cell or a span.

    Returns:
        The number, or None for a text that is more or less than one number.

    Example:
        >>> read_number("$(1,234)").value, read_number("12.5%").value, read_number("2019 and 2018"), read_number("—")
        (-1234.0, 12.5, None, None)
    """
    found = _DRESSED.fullmatch(text.strip())
    if not found:
        return None
    value = float(found["digits"].replace(",", ""))
    negative = "(" in found["before"] or any(sign in found["before"] for sign in "-–—−")
    return DressedNumber(-value if negative and value else value, found["before"], found["digits"], found["after"])


def dressed_as(other: DressedNumber, gold: DressedNumber) -> str:
    """Write a number with the currency, the percent sign and the words of another; sign marks are its own.

    Args:
        other: The number.
        gold: Whose dress it wears.

    Example:
        >>> dressed_as(read_number("(71)"), read_number("$1,280 million"))
        '$(71) million'
    """
    before = re.sub(r"[(–—−-]", "", gold.before)
    after = gold.after.replace(")", "")
    if "(" in other.before:
        # The bracket opens after the currency and closes right after the digits, as cells have it.
        return f"{before}({other.digits}){after}"
    sign = next((char for char in other.before if char in "-–—−"), "")
    return f"{sign}{before}{other.digits}{after}"
