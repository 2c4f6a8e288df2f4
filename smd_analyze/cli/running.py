"""Run a command and turn every way it can end into a sentence and an exit code (INTERFACE: 0, 1, 2, 3, 130)."""

import signal
import sys
import traceback

import typer

from smd_analyze.errors import SmdError

BUG, INTERRUPTED = 1, 130
WrongCall: type[typer.BadParameter] = typer.BadParameter.__mro__[2]  # ClickException: typer may bring its own click


def run(app: typer.Typer, words: list[str]) -> int:
    """Exit code of the command; errors that a person can mend are one sentence on stderr, without a traceback."""
    if hasattr(signal, "SIGPIPE"):  # `smd-analyze … | head`: when the reader has gone, end as other commands do
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
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
    except Exception:
        traceback.print_exc()
        typer.echo("error: this is a bug in smd-analyze; please report it with the lines above", err=True)
        return BUG
