"""The parser of all commands."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser
from torch.optim import Optimizer

from lit_align.cli_answers import complain, read_given
from lit_align.cli_class_change import reset_on_class_change
from lit_align.cli_explain import class_keys, explain


class AlignParser(LightningArgumentParser):
    """Answers a mistake with one line that names the key, its place, and the nearest valid one."""

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parse; a class that takes the place of another starts from its own defaults."""
        with reset_on_class_change():
            return super().parse_args(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the cause of a parsing error and exit with 2."""
        del ex
        complain(explain(message, read_given(sys.argv[1:]), self.known_keys()))
        sys.exit(2)

    def add_class_arguments(self, theclass: type[Any], *args: Any, **kwargs: Any) -> list[str]:
        """Add the parameters of a class; those of a default optimizer can be set without naming it again."""
        added: list[str] = super().add_class_arguments(theclass, *args, **kwargs)
        for action in self._actions:
            # jsonargparse does so itself for a plain factory, but not for a union with one.
            if isinstance(action.default, type) and issubclass(action.default, Optimizer):
                action.default = {"class_path": f"{action.default.__module__}.{action.default.__qualname__}"}
        return added

    def known_keys(self) -> set[str]:
        """Keys of this parser, of its subcommands, and of all classes that it may be given."""
        commands = getattr(self, "_subcommands_action", None)
        parsers = [self, *(commands.choices.values() if commands else ())]
        actions = [action.dest for parser in parsers for action in parser._actions]
        return {key for key in actions if key not in {"help", "subcommand"}} | class_keys()


class RefusedSettingsError(ValueError):
    """The arguments were understood, and a class refuses their values."""
