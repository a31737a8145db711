"""Every preference loss once or more: its values by hand on two pairs, and the loss of TRL that it equals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, log
from typing import Any

import torch

from lit_align.losses.preference.aot import AOTLoss, UnpairedAOTLoss
from lit_align.losses.preference.apo import APODownLoss, APOZeroLoss
from lit_align.losses.preference.bco import BCOPairLoss, ShiftedBCOPairLoss
from lit_align.losses.preference.chi_po import ChiPOLoss
from lit_align.losses.preference.contract import AnswerScores, PairScores, PreferenceLoss
from lit_align.losses.preference.cpo import CPOLoss
from lit_align.losses.preference.discopop import DiscoPOPLoss
from lit_align.losses.preference.dpop import DPOPLoss
from lit_align.losses.preference.exo import EXOPairLoss
from lit_align.losses.preference.f_dpo import AlphaDivergence, FDPOLoss, ForwardKL, JensenShannon, ReverseKL
from lit_align.losses.preference.hinge import HingeLoss
from lit_align.losses.preference.ipo import IPOLoss
from lit_align.losses.preference.length import LDDPOLoss, LengthNormalizedSigmoidLoss, RDPOLoss
from lit_align.losses.preference.nca import NCAPairLoss
from lit_align.losses.preference.nll import ChosenNLLLoss, RPOLoss
from lit_align.losses.preference.orpo import ORPOLoss
from lit_align.losses.preference.sigmoid import RobustLoss, SigmoidLoss
from lit_align.losses.preference.simpo import SimPOLoss
from lit_align.losses.preference.sppo import SPPOHardLoss
from lit_align.losses.preference.weighted_sum import WeightedSum
from lit_align.losses.preference.wpo import WPOLoss

F64 = torch.float64


@dataclass(frozen=True)
class TRL:
    """A loss of TRL 1.16.

    Attributes:
        settings: What is set in the trainer's config.
        trainer: ``DPO``, or one of ``trl.experimental``: ``CPO``, ``ORPO``.
    """

    settings: Mapping[str, Any]
    trainer: str = "DPO"


@dataclass(frozen=True)
class Case:
    """What is known about a loss.

    Attributes:
        loss: The loss.
        values: Its value on the two pairs of :func:`two_pairs`, by hand.
        trl: The loss of TRL that it equals, or why TRL has none.
    """

    loss: PreferenceLoss
    values: tuple[float, float]
    trl: TRL | str

    def __str__(self) -> str:
        return str(self.loss)


def answers(*rows: list[tuple[float, float, float]]) -> AnswerScores:
    """Answers from (log-prob, reference's log-prob, log of the sum of squares) of each token."""
    tokens = torch.tensor([token for row in rows for token in row], dtype=F64)
    pairs = torch.tensor([number for number, row in enumerate(rows) for _ in row])
    positions = torch.tensor([place for row in rows for place in range(len(row))])
    return AnswerScores(tokens[:, 0], tokens[:, 1], pairs, positions, len(rows), {"log_sum_squares": tokens[:, 2]})


def two_pairs() -> PairScores:
    """Log-ratios: chosen 1.25 and -0.75, rejected -0.5 and 0.5; so the differences are 1.75 and -1.25.

    Log-probs: chosen -1.75 and -2, rejected -2 and -5. Tokens: chosen 3 and 2, rejected 1 and 4.
    """
    chosen = answers(
        [(-1.0, -1.25, -1.5), (-0.5, -0.75, -1.0), (-0.25, -1.0, -0.75)], [(-0.5, -0.25, -1.0), (-1.5, -1.0, -0.5)]
    )
    rejected = answers(
        [(-2.0, -1.5, -1.75)], [(-1.0, -1.5, -1.0), (-1.0, -1.25, -1.0), (-1.0, -1.0, -1.0), (-2.0, -1.75, -1.0)]
    )
    return PairScores(chosen, rejected)


def sg(x: float) -> float:
    return 1 / (1 + exp(-x))


def sp(x: float) -> float:
    """-log sigmoid(x)"""
    return log(1 + exp(-x))


def log_odds(log_p: float) -> float:
    return log(exp(log_p) / (1 - exp(log_p)))


NO_CDPO = "TRL's label_smoothing acts in robust, exo_pair and aot only"
MIXED = WeightedSum((SigmoidLoss(0.5), BCOPairLoss(0.5), ChosenNLLLoss()), (0.8, 0.2, 0.3))
# e^s of the four answers
W0, W1, L0, L1 = exp(1.25), exp(-0.75), exp(-0.5), exp(0.5)

CASES = [
    Case(SigmoidLoss(0.5), (sp(0.875), sp(-0.625)), TRL({"loss_type": ["sigmoid"], "beta": 0.5})),
    Case(
        SigmoidLoss(0.5, label_smoothing=0.1),
        (0.9 * sp(0.875) + 0.1 * sp(-0.875), 0.9 * sp(-0.625) + 0.1 * sp(0.625)),
        NO_CDPO,
    ),
    Case(
        RobustLoss(0.5, label_smoothing=0.2),
        ((0.8 * sp(0.875) - 0.2 * sp(-0.875)) / 0.6, (0.8 * sp(-0.625) - 0.2 * sp(0.625)) / 0.6),
        TRL({"loss_type": ["robust"], "beta": 0.5, "label_smoothing": 0.2}),
    ),
    Case(HingeLoss(0.5), (0.125, 1.625), TRL({"loss_type": ["hinge"], "beta": 0.5})),
    Case(HingeLoss(2.0), (0.0, 3.5), TRL({"loss_type": ["hinge"], "beta": 2.0})),
    # 1.25/3 + 0.5 - 1 and -0.375 - 0.125 - 1
    Case(IPOLoss(0.5), ((11 / 12 - 1) ** 2, 2.25), TRL({"loss_type": ["ipo"], "beta": 0.5})),
    Case(IPOLoss(0.25, reduction="sum"), (0.0625, 10.5625), "TRL's ipo divides by length"),
    Case(
        EXOPairLoss(0.5, label_smoothing=0.01),
        (
            sg(0.875) * (-sp(0.875) - log(0.99)) + sg(-0.875) * (-sp(-0.875) - log(0.01)),
            sg(-0.625) * (-sp(-0.625) - log(0.99)) + sg(0.625) * (-sp(0.625) - log(0.01)),
        ),
        TRL({"loss_type": ["exo_pair"], "beta": 0.5, "label_smoothing": 0.01}),
    ),
    Case(
        NCAPairLoss(0.5),
        (
            sp(0.625) + 0.5 * sp(-0.625) + 0.5 * sp(0.25),
            sp(-0.375) + 0.5 * sp(0.375) + 0.5 * sp(-0.25),
        ),
        TRL({"loss_type": ["nca_pair"], "beta": 0.5}),
    ),
    Case(
        BCOPairLoss(0.5),
        (sp(0.625) + sp(0.25), sp(-0.375) + sp(-0.25)),
        TRL({"loss_type": ["bco_pair"], "beta": 0.5}),
    ),
    # The rewards 0.625, -0.375, -0.25 and 0.25 have the mean 0.0625.
    Case(
        ShiftedBCOPairLoss(0.5),
        (sp(0.5625) + sp(0.3125), sp(-0.4375) + sp(-0.1875)),
        "TRL's bco_pair has no shift",
    ),
    Case(SPPOHardLoss(0.25), (0.75**2 + 1.5**2, 2.75**2 + 2.5**2), TRL({"loss_type": ["sppo_hard"], "beta": 0.25})),
    # Margins 0.25 and 3 against the reference's -1.5 and 4.25; a sort of either alone would not change them.
    Case(AOTLoss(0.5), (sp(0.875), sp(-0.625)), TRL({"loss_type": ["aot"], "beta": 0.5})),
    Case(
        AOTLoss(0.5, label_smoothing=0.1),
        (0.9 * sp(0.875) + 0.1 * sp(-0.875), 0.9 * sp(-0.625) + 0.1 * sp(0.625)),
        TRL({"loss_type": ["aot"], "beta": 0.5, "label_smoothing": 0.1}),
    ),
    # Sorted: -0.75 and 1.25 against -0.5 and 0.5.
    Case(UnpairedAOTLoss(0.5), (sp(-0.125), sp(0.375)), TRL({"loss_type": ["aot_unpaired"], "beta": 0.5})),
    Case(
        UnpairedAOTLoss(0.5, label_smoothing=0.1),
        (0.9 * sp(-0.125) + 0.1 * sp(0.125), 0.9 * sp(0.375) + 0.1 * sp(-0.375)),
        TRL({"loss_type": ["aot_unpaired"], "beta": 0.5, "label_smoothing": 0.1}),
    ),
    Case(
        APOZeroLoss(0.5),
        (1 - sg(0.625) + sg(-0.25), 1 - sg(-0.375) + sg(0.25)),
        TRL({"loss_type": ["apo_zero"], "beta": 0.5}),
    ),
    Case(
        APODownLoss(0.5),
        (sg(0.625) + 1 - sg(0.875), sg(-0.375) + 1 - sg(-0.625)),
        TRL({"loss_type": ["apo_down"], "beta": 0.5}),
    ),
    Case(
        DiscoPOPLoss(0.1, tau=0.05),
        (
            (1 - sg(3.5)) * sp(0.175) + sg(3.5) * exp(-0.175),
            (1 - sg(-2.5)) * sp(-0.125) + sg(-2.5) * exp(0.125),
        ),
        TRL({"loss_type": ["discopop"], "beta": 0.1, "discopop_tau": 0.05}),
    ),
    Case(
        LengthNormalizedSigmoidLoss(3.0),
        (sp(2.75), sp(-1.5)),  # 3 (1.25/3 + 0.5), 3 (-0.375 - 0.125)
        TRL({"loss_type": ["sigmoid_norm"], "beta": 3.0}),
    ),
    Case(RDPOLoss(0.5, alpha=0.25), (sp(0.875 + 0.5), sp(-0.625 - 0.5)), "TRL has no R-DPO"),
    # Shared are 1 and 2 tokens: 0.25 + 0.25 * 1.0 against -0.5, and -0.75 against 0.75 - 0.25 * 0.25.
    Case(
        LDDPOLoss(SigmoidLoss(0.5), alpha=0.25),
        (sp(0.5), sp(0.5 * (-0.75 - 0.6875))),
        TRL({"loss_type": ["sigmoid"], "beta": 0.5, "ld_alpha": 0.25}),
    ),
    Case(
        LDDPOLoss(HingeLoss(0.5), alpha=0.25),
        (0.5, 1 + 0.5 * (0.75 + 0.6875)),
        TRL({"loss_type": ["hinge"], "beta": 0.5, "ld_alpha": 0.25}),
    ),
    # The aligned log-probs are 0.5, 0.5, 0.5 and -0.25; 0.5 and -1; 0, 0, 0 and -1: means 0.5, -0.25, -0.25, -0.25.
    Case(
        WPOLoss(SigmoidLoss(0.5)),
        (exp(0.25) * sp(0.875), exp(-0.5) * sp(-0.625)),
        TRL({"loss_type": ["sigmoid"], "beta": 0.5, "use_weighting": True}),
    ),
    Case(
        WPOLoss(IPOLoss(0.5)),
        (exp(0.25) / 144, exp(-0.5) * 2.25),
        TRL({"loss_type": ["ipo"], "beta": 0.5, "use_weighting": True}),
    ),
    Case(
        FDPOLoss(SigmoidLoss(0.5), ReverseKL()),
        (sp(0.875), sp(-0.625)),
        TRL({"loss_type": ["sigmoid"], "beta": 0.5, "f_divergence_type": "reverse_kl"}),
    ),
    Case(
        FDPOLoss(SigmoidLoss(0.5), ForwardKL()),
        (sp(0.5 * (1 / L0 - 1 / W0)), sp(0.5 * (1 / L1 - 1 / W1))),
        TRL({"loss_type": ["sigmoid"], "beta": 0.5, "f_divergence_type": "forward_kl"}),
    ),
    Case(
        FDPOLoss(SigmoidLoss(0.5), JensenShannon()),
        (
            sp(0.5 * (log(2 * W0 / (1 + W0)) - log(2 * L0 / (1 + L0)))),
            sp(0.5 * (log(2 * W1 / (1 + W1)) - log(2 * L1 / (1 + L1)))),
        ),
        TRL({"loss_type": ["sigmoid"], "beta": 0.5, "f_divergence_type": "js_divergence"}),
    ),
    Case(
        FDPOLoss(HingeLoss(0.2), AlphaDivergence(0.3)),
        (1 - 0.2 * (L0**-0.3 - W0**-0.3) / 0.3, 1 - 0.2 * (L1**-0.3 - W1**-0.3) / 0.3),
        TRL(
            {
                "loss_type": ["hinge"],
                "beta": 0.2,
                "f_divergence_type": "alpha_divergence",
                "f_alpha_divergence_coef": 0.7,
            }
        ),
    ),
    Case(
        ChiPOLoss(0.5),
        (sp(0.5 * (W0 + 1.25 - L0 + 0.5)), sp(0.5 * (W1 - 0.75 - L1 - 0.5))),
        "TRL has no chi-PO",
    ),
    # The fall of the second chosen answer is 0.75.
    Case(DPOPLoss(0.5, penalty=2.0), (sp(0.875), sp(0.5 * (-1.25 - 1.5))), "TRL has no DPOP"),
    Case(
        RPOLoss(0.5, alpha=0.3),
        (sp(0.875) + 0.3 * 1.75 / 3, sp(-0.625) + 0.3),
        TRL({"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.3], "beta": 0.5}),
    ),
    Case(ChosenNLLLoss(), (1.75 / 3, 1.0), TRL({"loss_type": ["sft"]})),
    Case(
        MIXED,
        (
            0.8 * sp(0.875) + 0.2 * (sp(0.625) + sp(0.25)) + 0.3 * 1.75 / 3,
            0.8 * sp(-0.625) + 0.2 * (sp(-0.375) + sp(-0.25)) + 0.3,
        ),
        TRL({"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 0.3], "beta": 0.5}),
    ),
    # Log-probs a token: chosen -7/12 and -1, rejected -2 and -5/4.
    Case(
        SimPOLoss(2.0, gamma=0.5),
        (sp(2 * (2 - 7 / 12) - 0.5), sp(2 * 0.25 - 0.5)),
        TRL({"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.5, "cpo_alpha": 0.0}, "CPO"),
    ),
    Case(
        CPOLoss(0.5, alpha=0.3),
        (sp(0.125) + 0.3 * 7 / 12, sp(1.5) + 0.3),
        TRL({"loss_type": "sigmoid", "beta": 0.5, "cpo_alpha": 0.3}, "CPO"),
    ),
    Case(
        ORPOLoss(0.3),
        (7 / 12 + 0.3 * sp(log_odds(-7 / 12) - log_odds(-2)), 1 + 0.3 * sp(log_odds(-1) - log_odds(-1.25))),
        TRL({"beta": 0.3}, "ORPO"),
    ),
]
