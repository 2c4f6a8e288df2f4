"""The command line: parse, call, print. `smd-analyze CKPTS` is the main command; ls, groups and schedule are its sisters."""

import sys
from collections.abc import Sequence

SISTERS = ("ls", "groups", "schedule")


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `smd-analyze`. A first word that is no sister's name is a path."""
    from smd_analyze.cli import commands
    from smd_analyze.cli.running import run

    words = list(sys.argv[1:] if argv is None else argv)
    app = commands.sisters if words and words[0] in SISTERS else commands.main_command
    sys.exit(run(app, words))
