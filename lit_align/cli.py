"""The command line: parse, build, run, record."""

from __future__ import annotations

import logging
import sys
import traceback
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

import lit_align.cli_names  # noqa: F401  so that configurations may use short names
from lit_align import __version__
from lit_align.callbacks.adapter_export import AdapterExport
from lit_align.callbacks.benchmark import BenchmarkEvaluation
from lit_align.callbacks.checkpoint import WindowCheckpoint
from lit_align.callbacks.displacement_guard import DisplacementGuard
from lit_align.callbacks.early_stopping import MTBenchEarlyStopping
from lit_align.callbacks.finished_adapter import FinishedAdapter
from lit_align.callbacks.measured import benchmarks_of
from lit_align.callbacks.measurement import refuse_trained_items
from lit_align.callbacks.progress import WindowProgress
from lit_align.callbacks.run_record import RunRecord
from lit_align.callbacks.stages import StageTransition, refuse_other_stages
from lit_align.checkpoint import AdapterCheckpointIO
from lit_align.cli_answers import complain, quick_answer, read_given, refuse_link_target
from lit_align.cli_audit import run_audit
from lit_align.cli_class_change import class_changes
from lit_align.cli_commands import COMMAND_CLASSES, run_command
from lit_align.cli_explain import refusal
from lit_align.cli_parser import AlignParser, RefusedSettingsError
from lit_align.cli_quiet import quiet_libraries
from lit_align.data.audit.settings import AuditSettings
from lit_align.data.audit.start import refuse_unsound
from lit_align.data.window_module import PlannedDataModule
from lit_align.fit_loop import EndingFitLoop
from lit_align.models.adapter_switch import AdapterSwitch
from lit_align.modules.base import AlignModule
from lit_align.modules.startup import (
    refuse_absent_devices,
    refuse_other_data,
    refuse_precision,
    refuse_trainer_settings,
)
from lit_align.tokenizer import PACKAGE_PREFIX

logger = logging.getLogger(__name__)


class AlignCLI(LightningCLI):
    """LightningCLI with our parser, loggers, checkpoints and record of the run."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The commands, and the arguments that the command line does not offer."""
        hidden = {"model", "datamodule", "weights_only"}
        return {
            "fit": {*hidden, "train_dataloaders", "val_dataloaders"},
            "validate": {*hidden, "dataloaders", "verbose"},
        }

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        if subcommand != sys.argv[1]:  # all options of the others would take as long again
            return self.init_parser(**kwargs)
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "validate":
            parser.add_argument(
                "--against", type=str, default="",
                help="Compare the benchmarks with those of this: a checkpoint, the folder of an adapter, or `base`.",
            )  # fmt: skip
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Options beside model, data and trainer."""
        parser.add_argument("--name", type=str, default="lit_align", help="Runs go to lightning_logs/NAME/version_N.")
        parser.add_argument(
            "--cpu_threads", type=int, default=0,
            help="Threads of one CPU operation; 0 leaves it to torch. For tiny models 1 is fastest.",
        )  # fmt: skip
        parser.add_lightning_class_args(WindowCheckpoint, "checkpoint")
        parser.add_class_arguments(AuditSettings, "audit")
        parser.link_arguments("model.init_args.base", "data.init_args.base")

    def _parse_ckpt_path(self) -> None:
        # Lightning would let hyper-parameters in a checkpoint override the command line.
        return

    def before_instantiate_classes(self) -> None:
        """Say which options a change of class took with it, and set the threads."""
        for change in class_changes(read_given(sys.argv[1:])):
            logger.info(str(change))
        if (threads := self._get(self.config, "cpu_threads")) > 0:
            torch.set_num_threads(threads)

    def instantiate_classes(self) -> None:
        """Build module, data and trainer; what one of them refuses is a mistake in the arguments."""
        try:
            trainer = self._get(self.config, "trainer")
            if str(trainer.precision) in {"16", "16-mixed"}:
                refuse_precision("16-mixed")  # on a CPU Lightning would take bf16-mixed instead
            refuse_absent_devices(trainer.accelerator, trainer.devices)
            super().instantiate_classes()
            refuse_trainer_settings(self.trainer)
            refuse_other_data(self.model, self.datamodule)
            refuse_other_stages(self.trainer, self.model, self.datamodule)
        except (ValueError, MisconfigurationException) as error:
            raise RefusedSettingsError(refusal(error, read_given(sys.argv[1:]))) from error

    def before_fit(self) -> None:
        """Find what is wrong with data, benchmarks, a checkpoint or the length of the run before a folder is made."""
        config = self._get(self.config_init, "trainer")
        if config.max_steps == -1 and config.max_epochs is None and config.max_time is None and not config.fast_dev_run:
            raise RefusedSettingsError("the run has no end: set `trainer.max_steps` or `trainer.max_epochs`")
        self._read_ahead("fit")
        if config.max_epochs is not None and config.max_epochs >= 0:
            getattr(self.datamodule, "windows_per_epoch", None)  # a stream does not know it, and says so

    def after_fit(self) -> None:
        """End with the reason of a run that was stopped before its time."""
        for one in self._callbacks:
            if isinstance(one, DisplacementGuard | MTBenchEarlyStopping | StageTransition) and one.stopped:
                logger.warning(one.stopped)

    def before_validate(self) -> None:
        """Open what is to be measured, and find what is wrong with it, data or benchmarks before a folder is made."""
        if self.trainer.limit_val_batches == 0:  # Lightning would pass over everything, benchmarks too
            raise RefusedSettingsError(
                "`validate` measures nothing with `trainer.limit_val_batches` = 0: set it to 1 for the benchmarks and "
                "little else"
            )
        path, against = (self._get(self.config_init, key) for key in ("ckpt_path", "against"))
        benchmarks = [one for one in self._callbacks if isinstance(one, BenchmarkEvaluation)]
        if against and not benchmarks:
            raise RefusedSettingsError(
                "`--against` compares what benchmarks measure, and `trainer.callbacks` has no BenchmarkEvaluation"
            )
        if path and (Path(path).is_dir() or str(path).startswith(PACKAGE_PREFIX)):
            self._refuse_misfit(AdapterSwitch(str(path)))
            self._callbacks.append(FinishedAdapter(str(path)))
            self.config_init["validate"]["ckpt_path"] = None  # not for Lightning to open
        if against:
            self._refuse_misfit(AdapterSwitch(against))
        for one in benchmarks if against else ():
            one.against = AdapterSwitch(against)
        self._read_ahead("validate")

    @property
    def _callbacks(self) -> list[Any]:
        return cast("list[Any]", self.trainer.callbacks)  # type: ignore[attr-defined]

    def _refuse_misfit(self, switch: AdapterSwitch) -> None:
        if isinstance(self.model, AlignModule):
            switch.check(self.model.base, self.model.lora)

    def _read_ahead(self, stage: str) -> None:
        if isinstance(self.model, AlignModule):
            self.model.reference.check(self.model.base, self.model.lora)  # first: the data may take minutes
        path = self._get(self.config_init, "ckpt_path")
        if path is not None and str(path) not in {"best", "last", "hpc"}:
            saved = AdapterCheckpointIO().load_checkpoint(path).get("callbacks", {})
            for one in self._callbacks if stage == "validate" else ():
                if isinstance(one, MTBenchEarlyStopping) and one.state_key in saved:
                    # Lightning does so for a fit alone; the table marks the questions that chose.
                    one.load_state_dict(saved[one.state_key])
        for benchmark in benchmarks_of(self._callbacks):
            benchmark.check()
        self.datamodule.prepare_data()
        self.datamodule.setup(stage)
        if stage == "fit" and isinstance(self.datamodule, PlannedDataModule):
            refuse_unsound(self.datamodule, self._get(self.config_init, "audit"))
        refuse_trained_items(self.datamodule, benchmarks_of(self._callbacks))

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add atomic checkpoints, and the two loggers of the run's folder unless others are asked for."""
        config = self._get(self.config_init, "trainer")
        if config.get("enable_progress_bar") is False:
            ours = self.trainer_defaults["callbacks"]
            self.trainer_defaults["callbacks"] = [one for one in ours if not isinstance(one, WindowProgress)]
        kwargs["plugins"] = [*_as_list(config.get("plugins")), AdapterCheckpointIO()]
        if config.get("logger") in (None, True):
            name = self._get(self.config_init, "name")
            board = TensorBoardLogger("lightning_logs", name=name, default_hp_metric=False)
            kwargs["logger"] = [board, CSVLogger("lightning_logs", name=name, version=board.version)]
        elif config.get("logger") is False:
            self.save_config_callback = None  # Lightning would write config.yaml into the working folder
        trainer: Trainer = super().instantiate_trainer(**kwargs)
        trainer.fit_loop = EndingFitLoop(trainer)
        return trainer


class AuditCLI(AlignCLI):
    """Takes what ``fit`` takes, and builds neither a trainer nor a model with weights."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Those of ``fit``, and the folder of the report."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--out", type=str, default="", help="Folder of the report; lightning_logs/audit/NAME.")
        for key in ("ckpt_path", "against"):  # may stand in a file of another command
            parser.add_argument(f"--{key}", type=str, default=None, help="Not used here.")

    def instantiate_classes(self) -> None:
        """Build all but the trainer."""
        try:
            self.config_init = self.parser.instantiate_classes(self.config)
            refuse_other_data(self.config_init["model"], self.config_init["data"])
        except (ValueError, MisconfigurationException) as error:
            raise RefusedSettingsError(refusal(error, read_given(sys.argv[1:]))) from error


_PACKAGE = str(Path(__file__).parent)


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [] if value is None else [value]


def main(args: ArgsType = None) -> int:
    """Run a command.

    Args:
        args: Arguments instead of those of the process, without the program's name.

    Returns:
        The exit status: 0, 1 for an error of the run or Ctrl-C; a mistake in the arguments exits with 2.
    """
    words = [str(arg) for arg in args] if isinstance(args, list) else sys.argv[1:]
    show_traceback = "--traceback" in words
    words = [word for word in words if word != "--traceback"]
    if (status := quick_answer(words)) is not None:
        return status
    quiet_libraries()
    try:
        try:
            given = read_given(words)
            refuse_link_target(given)
            for change in class_changes(given):
                change.refuse_if_unclear()
        except (ValueError, FileNotFoundError) as error:
            raise RefusedSettingsError(str(error)) from error
        if words[0] == "audit":
            return run_audit(_built(AuditCLI, words[1:], run=False).config_init)
        (run_command if words[0] in COMMAND_CLASSES else _run)(words)
    except RefusedSettingsError as error:
        if show_traceback:
            raise
        complain(str(error))
        sys.exit(2)
    except (ValueError, TypeError, OSError, ImportError, RuntimeError, MisconfigurationException) as error:
        if show_traceback:
            raise
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _PACKAGE in frame.filename]
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}; " if frames else ""
        complain(f"{str(error) or type(error).__name__} ({where}--traceback shows more)")
        return 1
    except KeyboardInterrupt:  # inside of a run Lightning ends it in good order, also with 1
        return 1
    return 0


def _run(words: list[str]) -> None:
    _built(AlignCLI, words, run=True)


_CLI = TypeVar("_CLI", bound=AlignCLI)


def _built(command: type[_CLI], words: list[str], run: bool) -> _CLI:
    sys.argv[1:] = words  # Lightning's subprocess launcher starts the other ranks with these
    return command(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        parser_class=AlignParser,
        parser_kwargs={"allow_abbrev": False, "version": f"lit-align {__version__}"},
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
        seed_everything_default=0,
        run=run,
        trainer_defaults={
            "use_distributed_sampler": False,
            "num_sanity_val_steps": 0,
            "enable_model_summary": False,
            "log_every_n_steps": 1,
            "callbacks": [RunRecord(), WindowProgress(), AdapterExport()],
        },
    )
