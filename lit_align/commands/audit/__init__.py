"""``lit-align audit``: what training would see of the data, without training."""

from lit_align.commands.audit.body import audit

__all__ = ["audit"]
