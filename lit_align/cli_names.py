"""The classes that configurations may name without their module."""

from __future__ import annotations

from lit_align.callbacks.benchmark import BenchmarkEvaluation
from lit_align.callbacks.displacement_guard import DisplacementGuard
from lit_align.callbacks.early_stopping import MTBenchEarlyStopping
from lit_align.callbacks.stages import StageTransition
from lit_align.data.preference import PreferenceDataModule
from lit_align.data.preference_stream import PreferenceStream
from lit_align.data.sft import SFTDataModule
from lit_align.data.sft_stream import SFTStream
from lit_align.data.sources.decontaminated import DecontaminatedConversations, DecontaminatedPairs
from lit_align.data.sources.ending_pairs import EndingPairs
from lit_align.data.sources.finance_instruct import FinanceInstruct
from lit_align.data.sources.finance_instruct_pairs import FinanceInstructPairs
from lit_align.data.sources.messages_file import MessagesFile
from lit_align.data.sources.named import NamedConversations, NamedPairs, NamedRated
from lit_align.data.sources.orca_dpo import OrcaDPO
from lit_align.data.sources.preference_file import PreferenceFile
from lit_align.data.sources.prompt_completion_file import PromptCompletionFile
from lit_align.data.sources.reddit_finance import RedditFinance
from lit_align.data.sources.reddit_pairs import RedditFinancePairs
from lit_align.data.sources.reddit_recipe import RecipeRedditPairs
from lit_align.data.sources.samples import BestOfSamples, RatedSamples, RejectedSamples, RightAndWrong
from lit_align.data.sources.scale_answers import ScalePairs
from lit_align.data.sources.skill_pairs import SkillPairs
from lit_align.data.sources.t_wix import TWix
from lit_align.data.sources.table_skills import TableSkills
from lit_align.data.sources.tat_qa.conversations import TATQAAnswers
from lit_align.data.sources.tat_qa.sampled import SampledNegatives
from lit_align.data.sources.tat_qa.source import TATQA
from lit_align.data.sources.tat_qa.symmetric import SymmetricNegatives
from lit_align.data.sources.unpaired_pairs import UnpairedPairs
from lit_align.data.sources.unpaired_preference_file import UnpairedPreferenceFile
from lit_align.data.staged import StagedPreferences
from lit_align.data.unpaired import UnpairedDataModule
from lit_align.evals.drift import DriftBenchmark
from lit_align.evals.exact_match import ExactMatchBenchmark
from lit_align.evals.finance_instruct import FinanceInstructBenchmark
from lit_align.evals.instructions.benchmark import InstructionBenchmark
from lit_align.evals.instructions.prompt_source import InstructionPrompts
from lit_align.evals.judge.endpoint import EndpointJudge
from lit_align.evals.judge.known_quality import PreferredAnswers, RatedFile
from lit_align.evals.judge.reference import ReferenceScorer
from lit_align.evals.judge.reward_model import RewardModelScorer
from lit_align.evals.judge.score_map import CalibratedMap, LegacyMap
from lit_align.evals.mt_bench import MTBenchBenchmark
from lit_align.evals.pair_accuracy import PairAccuracyBenchmark
from lit_align.evals.preferred_answer import PreferredAnswerBenchmark
from lit_align.evals.reddit_reply import RedditReplyBenchmark
from lit_align.evals.scored_answers import ScoredAnswersBenchmark
from lit_align.evals.tat_qa import TATQABenchmark
from lit_align.losses.anchor import ReverseKL
from lit_align.losses.preference import PreferenceLoss
from lit_align.losses.unpaired import UnpairedLoss
from lit_align.modules.dpo import DPOModule
from lit_align.modules.kto import KTOModule
from lit_align.modules.optimizer import AdamW8bit
from lit_align.modules.sft import SFTModule
from lit_align.schedule import CosineSchedule

# Imported so that configurations may use short names: of these and of all classes that their files define.
SHORT_NAMES = (
    AdamW8bit, BenchmarkEvaluation, BestOfSamples, CalibratedMap, CosineSchedule, DecontaminatedConversations,
    DecontaminatedPairs, DisplacementGuard, DPOModule, DriftBenchmark, EndingPairs, EndpointJudge, ExactMatchBenchmark,
    FinanceInstruct, FinanceInstructBenchmark, FinanceInstructPairs, InstructionBenchmark, InstructionPrompts,
    KTOModule, LegacyMap, MessagesFile, MTBenchBenchmark, MTBenchEarlyStopping, NamedConversations, NamedPairs,
    NamedRated, OrcaDPO, PairAccuracyBenchmark, PreferenceDataModule, PreferenceFile, PreferenceLoss, PreferenceStream,
    PreferredAnswerBenchmark, PreferredAnswers, PromptCompletionFile, RatedFile, RatedSamples, RecipeRedditPairs,
    RedditFinance, RedditFinancePairs, RedditReplyBenchmark, ReferenceScorer, RejectedSamples, ReverseKL,
    RewardModelScorer, RightAndWrong, SampledNegatives, ScalePairs, ScoredAnswersBenchmark, SFTDataModule, SFTModule,
    SFTStream, SkillPairs, StagedPreferences, StageTransition, SymmetricNegatives, TableSkills, TATQA, TATQAAnswers,
    TATQABenchmark, TWix, UnpairedDataModule, UnpairedLoss, UnpairedPairs, UnpairedPreferenceFile,
)  # fmt: skip
