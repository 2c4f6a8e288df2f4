"""Run a command and turn every way it can end into a sentence and an exit code (INTERFACE: 0, 1, 2, 3, 130)."""

import os
import sys
import traceback

import typer

from smd_analyze.errors import SmdError

BUG, INTERRUPTED = 1, 130
WrongCall: type[typer.BadParameter] = typer.BadParameter.__mro__[2]  # ClickException: typer may bring its own click


def run(app: typer.Typer, words: list[str]) -> int:
    """Exit code of the command; errors that a person can mend are one sentence on stderr, without a traceback."""
    try:
        code = typer.main.get_command(app).main(args=words, prog_name="smd-analyze", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except SmdError as error:
        typer.echo(f"error: {error}", err=True)
        return error.exit_code
    except typer.Exit as ended:
        return ended.exit_code
    except WrongCall as error:
        error.show()
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        typer.echo("interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:  # `smd-analyze … | head`: the reader has gone, there is nobody to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception:
        traceback.print_exc()
        typer.echo("error: this is a bug in smd-analyze; please report it with the lines above", err=True)
        return BUG
