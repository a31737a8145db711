"""References, one file each: the policy's own weights with other adapters active."""

from lit_align.models.reference.adapters import (
    adapters_below_fingerprint,
    below_live,
    live_dropout_off,
    only_adapters,
)
from lit_align.models.reference.base import BaseReference, refuse_trainable_base
from lit_align.models.reference.cached import CachedReference
from lit_align.models.reference.contract import Reference
from lit_align.models.reference.ema import EMAReference
from lit_align.models.reference.frozen_adapter import FrozenAdapterReference
from lit_align.models.reference.stacked import StackedReference

__all__ = [
    "BaseReference",
    "CachedReference",
    "EMAReference",
    "FrozenAdapterReference",
    "Reference",
    "StackedReference",
    "adapters_below_fingerprint",
    "below_live",
    "live_dropout_off",
    "only_adapters",
    "refuse_trainable_base",
]
