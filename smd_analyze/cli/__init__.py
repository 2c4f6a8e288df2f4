"""The command line: parse, call, print. `smd-analyze CKPTS` is the main command, ls, groups, schedule its sisters."""

import sys
from collections.abc import Sequence

SISTERS = ("ls", "groups", "schedule")
ANYWHERE = ("-q", "--quiet", "-v", "--verbose")  # said before the sister's name too


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `smd-analyze`. A first word (but for -q and -v) that is no sister's name is a path."""
    from smd_analyze.cli import commands
    from smd_analyze.cli.running import run

    words = list(sys.argv[1:] if argv is None else argv)
    first = next((i for i, word in enumerate(words) if word not in ANYWHERE), 0)
    if first < len(words) and words[first] in SISTERS:
        sys.exit(run(commands.sisters, [words[first], *words[:first], *words[first + 1 :]]))
    sys.exit(run(commands.main_command, words))
