"""Preference losses: what a pair of answers to one prompt costs."""

from lit_align.losses.preference.aot import AOTLoss, UnpairedAOTLoss
from lit_align.losses.preference.apo import APODownLoss, APOZeroLoss
from lit_align.losses.preference.bco import BCOPairLoss, ShiftedBCOPairLoss
from lit_align.losses.preference.chi_po import ChiPOLoss
from lit_align.losses.preference.contract import AnswerScores, PairScores, PreferenceLoss
from lit_align.losses.preference.cpo import CPOLoss
from lit_align.losses.preference.discopop import DiscoPOPLoss
from lit_align.losses.preference.dpop import DPOPLoss
from lit_align.losses.preference.exo import EXOPairLoss
from lit_align.losses.preference.f_dpo import FDPOLoss
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

__all__ = [
    "AOTLoss",
    "APODownLoss",
    "APOZeroLoss",
    "AnswerScores",
    "BCOPairLoss",
    "CPOLoss",
    "ChiPOLoss",
    "ChosenNLLLoss",
    "DPOPLoss",
    "DiscoPOPLoss",
    "EXOPairLoss",
    "FDPOLoss",
    "HingeLoss",
    "IPOLoss",
    "LDDPOLoss",
    "LengthNormalizedSigmoidLoss",
    "NCAPairLoss",
    "ORPOLoss",
    "PairScores",
    "PreferenceLoss",
    "RDPOLoss",
    "RPOLoss",
    "RobustLoss",
    "SPPOHardLoss",
    "ShiftedBCOPairLoss",
    "SigmoidLoss",
    "SimPOLoss",
    "UnpairedAOTLoss",
    "WPOLoss",
    "WeightedSum",
]
