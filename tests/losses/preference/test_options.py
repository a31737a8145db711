"""Options of preference losses: a wrong one is refused by name, and an inner loss brings its own."""

from __future__ import annotations

import math
from dataclasses import MISSING, fields
from typing import Any

import pytest
from jsonargparse import ArgumentParser

from lit_align.losses.preference.aot import AOTLoss, UnpairedAOTLoss
from lit_align.losses.preference.apo import APODownLoss, APOZeroLoss
from lit_align.losses.preference.bco import BCOPairLoss, ShiftedBCOPairLoss
from lit_align.losses.preference.chi_po import ChiPOLoss
from lit_align.losses.preference.contract import PreferenceLoss
from lit_align.losses.preference.cpo import CPOLoss
from lit_align.losses.preference.discopop import DiscoPOPLoss
from lit_align.losses.preference.dpop import DPOPLoss
from lit_align.losses.preference.exo import EXOPairLoss
from lit_align.losses.preference.f_dpo import AlphaDivergence, FDPOLoss
from lit_align.losses.preference.hinge import HingeLoss
from lit_align.losses.preference.ipo import IPOLoss
from lit_align.losses.preference.length import LDDPOLoss, LengthNormalizedSigmoidLoss, RDPOLoss
from lit_align.losses.preference.nca import NCAPairLoss
from lit_align.losses.preference.nll import RPOLoss
from lit_align.losses.preference.orpo import ORPOLoss
from lit_align.losses.preference.sigmoid import RobustLoss, SigmoidLoss
from lit_align.losses.preference.simpo import SimPOLoss
from lit_align.losses.preference.sppo import SPPOHardLoss
from lit_align.losses.preference.weighted_sum import WeightedSum
from lit_align.losses.preference.wpo import WPOLoss
from tests.losses.preference.table import CASES

WRONG: list[tuple[type[Any], dict[str, Any], str]] = [
    *(
        (loss, {"beta": value}, f"beta must be finite and > 0, got {value}")
        for loss in (
            SigmoidLoss,
            RobustLoss,
            HingeLoss,
            IPOLoss,
            EXOPairLoss,
            NCAPairLoss,
            BCOPairLoss,
            ShiftedBCOPairLoss,
            SPPOHardLoss,
            AOTLoss,
            UnpairedAOTLoss,
            APOZeroLoss,
            APODownLoss,
            DiscoPOPLoss,
            RDPOLoss,
            ChiPOLoss,
            LengthNormalizedSigmoidLoss,
            DPOPLoss,
            RPOLoss,
            SimPOLoss,
            CPOLoss,
        )
        for value in (0.0, -0.1, math.inf, math.nan)
    ),
    *(
        (loss, {"label_smoothing": value}, rf"label_smoothing must be in \[0, 0.5\), got {value}")
        for loss in (SigmoidLoss, RobustLoss, AOTLoss, UnpairedAOTLoss)
        for value in (-0.1, 0.5, math.nan)
    ),
    *(
        (EXOPairLoss, {"label_smoothing": value}, rf"label_smoothing must be in \(0, 0.5\), got {value}")
        for value in (0.0, 0.5, math.nan)
    ),
    (IPOLoss, {"reduction": "max"}, "reduction must be mean or sum, got 'max'"),
    *((DiscoPOPLoss, {"tau": value}, rf"tau must be in \(0, 1\], got {value}") for value in (0.0, 1.5, math.nan)),
    *(
        (loss, {name: value}, f"{name} must be finite and >= 0, got {value}")
        for loss, name in (
            (DPOPLoss, "penalty"),
            (RDPOLoss, "alpha"),
            (RPOLoss, "alpha"),
            (CPOLoss, "alpha"),
            (ORPOLoss, "coef"),
        )
        for value in (-1.0, math.inf, math.nan)
    ),
    *(
        (LDDPOLoss, {"loss": SigmoidLoss(), "alpha": value}, rf"alpha must be in \[0, 1\], got {value}")
        for value in (-0.1, 1.1, math.nan)
    ),
    *((AlphaDivergence, {"alpha": value}, rf"alpha must be in \(0, 1\), got {value}") for value in (0.0, 1.0)),
    *((ChiPOLoss, {"max_reward": value}, f"max_reward must be > 0, got {value}") for value in (0.0, -1.0, math.nan)),
    (SimPOLoss, {"gamma": math.inf}, "gamma must be finite, got inf"),
    (FDPOLoss, {"loss": SigmoidLoss(), "divergence": "js"}, "divergence must be an FDivergence, got 'js'"),
    *(
        (loss, {"loss": inner}, "loss must be one of a difference of sums")
        for loss in (FDPOLoss, LDDPOLoss)
        for inner in (BCOPairLoss(), AOTLoss(), APODownLoss(), IPOLoss(), LengthNormalizedSigmoidLoss(), "sigmoid")
    ),
    (WPOLoss, {"loss": UnpairedAOTLoss()}, "WPO weighs single pairs, and UnpairedAOTLoss"),
    (WPOLoss, {"loss": "sigmoid"}, "loss must be a PreferenceLoss, got 'sigmoid'"),
    (WeightedSum, {"losses": (), "weights": ()}, "at least one loss, got none"),
    (WeightedSum, {"losses": (SigmoidLoss(),), "weights": (1.0, 2.0)}, "1 losses and 2 weights"),
    (WeightedSum, {"losses": (SigmoidLoss(),), "weights": (-1.0,)}, "weights must be finite and >= 0, got -1.0"),
    (WeightedSum, {"losses": ("sigmoid",), "weights": (1.0,)}, "losses must be PreferenceLosses, got 'sigmoid'"),
    *(
        (
            WeightedSum,
            {"losses": (AOTLoss(), by_token), "weights": (1.0, 1.0)},
            r"AOTLoss\(.*\) couples pairs, which are handed over as sums, and \w+Loss\(.*\) reads single tokens",
        )
        for by_token in (
            WPOLoss(SigmoidLoss()),
            LDDPOLoss(SigmoidLoss()),
            WPOLoss(WeightedSum((LDDPOLoss(SigmoidLoss()),), (1.0,))),
        )
    ),
]


@pytest.mark.parametrize(("loss", "options", "message"), WRONG, ids=lambda value: getattr(value, "__name__", None))
def test_a_wrong_option_is_refused_by_name(loss: type[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loss(**options)


@pytest.mark.parametrize(
    ("inner", "expected"),
    [("LengthNormalizedSigmoidLoss", LengthNormalizedSigmoidLoss()), ("SPPOHardLoss", SPPOHardLoss())],
)
def test_an_inner_loss_named_on_the_command_line_has_its_own_defaults(inner: str, expected: PreferenceLoss) -> None:
    """Why none has a default: jsonargparse hands a default's ``beta`` to whatever class is named in its place."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--loss", type=PreferenceLoss)
    parsed = parser.instantiate(parser.parse_args(["--loss=WPOLoss", f"--loss.loss={inner}"]))
    assert parsed.loss == WPOLoss(expected)


def test_no_field_has_a_loss_as_its_default() -> None:
    for loss in {type(case.loss) for case in CASES}:
        assert not [field.name for field in fields(loss) if isinstance(field.default, PreferenceLoss)]
        assert not [field.name for field in fields(loss) if field.default_factory is not MISSING]
