"""Entry point of ``lit-align`` and ``python -m lit_align``."""

from __future__ import annotations

import sys

from lit_align.cli_answers import quick_answer


def main() -> None:
    """Answer what needs no torch at once; hand everything else to the command line."""
    status = quick_answer(sys.argv[1:])
    if status is None:
        try:
            from lit_align.cli import main as cli_main

            status = cli_main()
        except KeyboardInterrupt:  # while the libraries load
            status = 1
    sys.exit(status)


if __name__ == "__main__":
    main()
