"""The command line: parse, build, run, record."""

from __future__ import annotations

import logging
import re
import sys
import traceback
import warnings
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

# Imported so that configurations may use the short names of their classes.
import lit_align.data.sft
import lit_align.data.sources.messages_file
import lit_align.data.sources.prompt_completion_file
import lit_align.data.sources.table_skills
import lit_align.evals.exact_match
import lit_align.losses.anchor
import lit_align.modules.schedule
import lit_align.modules.sft
from lit_align import __version__
from lit_align.callbacks.adapter_export import AdapterExport
from lit_align.callbacks.benchmark import BenchmarkEvaluation  # noqa: F401  a short name too
from lit_align.callbacks.checkpoint import WindowCheckpoint
from lit_align.callbacks.progress import WindowProgress
from lit_align.callbacks.run_record import RunRecord
from lit_align.checkpoint import AdapterCheckpointIO
from lit_align.modules.base import NonFiniteError

_KEY_ERRORS = (
    re.compile(r"Group '(?P<group>[^']+)' does not accept (?:nested )?(?:option|key) '(?P<key>[^']+)'"),
    re.compile(r"[Nn]o action for (?:destination )?key \"(?P<key>[^\"]+)\""),
    re.compile(r"Subcommand '[^']+' does not accept (?:nested )?(?:option|key) '(?P<key>[^']+)'"),
    re.compile(r"Option '(?P<key>[^']+)' is not accepted"),
    re.compile(r"[Kk]ey '(?P<key>[^']+)' is not expected"),
    re.compile(r"[Uu]nrecognized arguments: -*(?P<key>[^\s=]+)"),
)


class AlignParser(LightningArgumentParser):
    """Answers a mistake with one line that names the key and the nearest valid one."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the cause of a parsing error and exit with 2."""
        del ex
        sys.stderr.write(f"lit-align: {explain(message, self.known_keys())}\n")
        sys.exit(2)

    def known_keys(self) -> set[str]:
        """Keys of this parser, of its subcommands, and of all classes that it may be given."""
        keys: set[str] = set()
        parsers = [self, *(getattr(self, "_subcommands_action", None) or _Nothing()).choices.values()]
        for parser in parsers:
            keys |= {action.dest for action in parser._actions if action.dest not in {"help", "subcommand"}}
        return keys | _class_keys()


class _Nothing:
    choices: dict[str, Any] = {}  # noqa: RUF012  never written


def _class_keys() -> set[str]:
    """Parameters of everything a configuration can name by class path."""
    import dataclasses
    import inspect

    found: set[str] = set()
    for module in [m for name, m in sys.modules.items() if name.startswith("lit_align.")]:
        for value in vars(module).values():
            if inspect.isclass(value) and value.__module__.startswith("lit_align."):
                if dataclasses.is_dataclass(value):
                    found |= {field.name for field in dataclasses.fields(value)}
                elif "__init__" in vars(value):
                    found |= {name for name in inspect.signature(value.__init__).parameters if name != "self"}
    return found


def explain(message: str, known: set[str]) -> str:
    """The cause of a parsing error in one line.

    Args:
        message: What jsonargparse says, of many lines.
        known: Valid keys, to name the nearest one.

    Example:
        >>> explain("Parser key ... Group 'lora' does not accept option 'aplha'", {"alpha", "rank"})
        'unknown key `lora.aplha`; did you mean `alpha`?'
    """
    for pattern in _KEY_ERRORS:
        for match in reversed(list(pattern.finditer(message))):
            parts = match.groupdict()
            key = ".".join(filter(None, (parts.get("group"), parts["key"])))
            near = get_close_matches(key, known, 1, 0.6) or get_close_matches(key.split(".")[-1], known, 1, 0.6)
            return f"unknown key `{key}`" + (f"; did you mean `{near[0]}`?" if near else "; see --help")
    lines = [line.strip(" -") for line in message.splitlines() if line.strip()]
    # The outer lines tell where, the innermost what; unions are told once a member, the last is enough.
    causes = [
        line for line in lines if not line.startswith(("Does not validate against", "Problem with given class_path"))
    ]
    where = re.search(r"(?:Parser key|Validation failed: Parser key) \"(?P<key>[^\"]+)\"", message)
    cause = causes[-1] if causes else message.strip()
    prefix = f"`{where['key']}`: " if where and where["key"] not in cause else ""
    return f"{prefix}{cause}"


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

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Options beside model, data and trainer."""
        parser.add_argument("--name", type=str, default="lit_align", help="Runs go to lightning_logs/NAME/version_N.")
        parser.add_argument(
            "--cpu_threads", type=int, default=0,
            help="Threads of one CPU operation; 0 leaves it to torch. For tiny models 1 is fastest.",
        )  # fmt: skip
        parser.add_lightning_class_args(WindowCheckpoint, "checkpoint")
        parser.link_arguments("model.init_args.base", "data.init_args.base")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse; a value for the target of the link would be dropped silently and is refused."""
        given = [str(arg) for arg in args] if isinstance(args, list) else sys.argv[1:]
        _refuse_link_target(given)
        super().parse_arguments(parser, args)

    def _parse_ckpt_path(self) -> None:
        # Lightning would let hyper-parameters in a checkpoint override the command line.
        return

    def before_instantiate_classes(self) -> None:
        """Set the threads."""
        if (threads := self._get(self.config, "cpu_threads")) > 0:
            torch.set_num_threads(threads)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add atomic checkpoints, and the two loggers of the run's folder unless others are asked for."""
        config = self._get(self.config_init, "trainer")
        kwargs["plugins"] = [*_as_list(config.get("plugins")), AdapterCheckpointIO()]
        if config.get("logger") in (None, True):
            name = self._get(self.config_init, "name")
            board = TensorBoardLogger("lightning_logs", name=name, default_hp_metric=False)
            kwargs["logger"] = [board, CSVLogger("lightning_logs", name=name, version=board.version)]
        elif config.get("logger") is False:
            self.save_config_callback = None  # Lightning would write config.yaml into the working folder
        return super().instantiate_trainer(**kwargs)


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [] if value is None else [value]


def _refuse_link_target(args: list[str]) -> None:
    wrong = [arg for arg in args if re.match(r"--data\.(init_args\.)?base(=|$)", arg)]
    for flag, value in zip(args, [*args[1:], ""], strict=True):
        path = value if flag in {"-c", "--config"} else flag.partition("=")[2] if flag.startswith("--config=") else ""
        if path and Path(path).is_file():
            data = (yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}).get("data") or {}
            if isinstance(data, dict) and ("base" in data or "base" in (data.get("init_args") or {})):
                wrong.append(f"`data.base` in {path}")
    if wrong:
        sys.stderr.write(f"lit-align: {wrong[0]}: the data module takes its base from the model; set `model.base`\n")
        sys.exit(2)


def _quiet_libraries() -> None:
    """Keep our lines on the terminal, and drop those of libraries that a user can do nothing about."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # "GPU available", tips for services, "Seed set to": said through a logger of its own.
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)
    own = logging.getLogger("lit_align")
    own.setLevel(logging.INFO if rank_zero_only.rank == 0 else logging.ERROR)
    if not own.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        own.addHandler(handler)
    for message, reason in _HARMLESS.items():
        del reason
        warnings.filterwarnings("ignore", message=message)


_HARMLESS = {
    r".*isinstance\(treespec, LeafSpec\)": "Lightning 2.6 uses a name that torch 2.13 has deprecated",
    r".*module\(s\) in eval mode at the start of training": "the frozen base is meant to be",
    r".*does not have many workers": "forests are built from tokens in memory; workers are an option of ours",
    r".*dataloader is\s+not resumable": "the sampler takes its position from the trainer's own count",
    r".*is smaller than the logging interval": "short runs are fine",
    r"Checkpoint directory .* exists and is not empty": "a resumed run writes into a new version",
    r".*lr_scheduler\.step\(\)` before `optimizer\.step": "the optimizer steps behind Lightning's wrapper",
    r"Experiment logs directory .* exists and is not empty": "both loggers share the run's folder; versions are fresh",
    r"Total length of `list` across ranks is zero": "no validation data were asked for",
    r".*does not support .*gemm_4bit": "bitsandbytes on CPU falls back to its plain kernel",
}


def main(args: ArgsType = None) -> int:
    """Run a command.

    Args:
        args: Arguments instead of those of the process, without the program's name.

    Returns:
        The exit status: 0, 1 for an error of the run; a mistake in the arguments exits with 2.
    """
    words = list(args) if isinstance(args, list) else sys.argv[1:]
    show_traceback = "--traceback" in words
    words = [word for word in words if word != "--traceback"]
    _quiet_libraries()
    try:
        _run(words)
    except (
        ValueError,
        TypeError,
        OSError,
        ImportError,
        NonFiniteError,
        MisconfigurationException,
        RuntimeError,
    ) as error:
        if show_traceback:
            raise
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "lit_align" in frame.filename]
        where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
        sys.stderr.write(f"lit-align: {error or type(error).__name__}{where}\n(--traceback shows the whole stack)\n")
        return 1
    return 0


def _run(words: list[str]) -> None:
    sys.argv[1:] = words  # Lightning's subprocess launcher starts the other ranks with these
    AlignCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        parser_class=AlignParser,
        parser_kwargs={"allow_abbrev": False, "version": f"lit-align {__version__}"},
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
        seed_everything_default=0,
        trainer_defaults={
            "use_distributed_sampler": False,
            "num_sanity_val_steps": 0,
            "enable_model_summary": False,
            "log_every_n_steps": 1,
            "callbacks": [RunRecord(), WindowProgress(), AdapterExport()],
        },
    )
