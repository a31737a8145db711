"""Entry point of ``lit-align`` and ``python -m lit_align``."""

from __future__ import annotations

import sys


def main() -> None:
    """Answer ``--version`` at once; hand everything else to the command line."""
    if sys.argv[1:] == ["--version"]:
        from lit_align import __version__

        print(f"lit-align {__version__}")  # noqa: T201  the answer
        return
    from lit_align.cli import main as cli_main

    sys.exit(cli_main())


if __name__ == "__main__":
    main()
