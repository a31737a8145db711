"""The commands beside training and validation: a frozen dataclass each, whose fields are the keys."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from lit_align import __version__
from lit_align.cli_answers import COMMANDS, read_given
from lit_align.cli_explain import refusal
from lit_align.cli_parser import AlignParser, RefusedSettingsError
from lit_align.commands.calibrate import Calibrate
from lit_align.commands.export import Export
from lit_align.commands.sample import Sample

COMMAND_CLASSES: dict[str, type[Any]] = {"calibrate": Calibrate, "export": Export, "sample": Sample}


def run_command(words: Sequence[str]) -> None:
    """Parse the arguments of a command, build it and run it.

    Args:
        words: The command's name and its arguments.

    Raises:
        RefusedSettingsError: A class refuses its values.
    """
    sys.argv[1:] = words  # for messages and the record of the run
    name = words[0]
    command = COMMAND_CLASSES[name]
    parser = AlignParser(
        prog=f"lit-align {name}", description=COMMANDS[name], allow_abbrev=False, version=f"lit-align {__version__}"
    )
    parser.add_argument("-c", "--config", action="config", help="A file of keys; later ones win.")
    parser.add_class_arguments(command)
    config = parser.parse_args(list(words[1:]))
    try:
        built = parser.instantiate_classes(config)
        body = command(**{field.name: built[field.name] for field in fields(command)})
    except ValueError as error:
        raise RefusedSettingsError(refusal(error, read_given(words[1:]))) from error
    body.run()
