"""Run a command and turn every way it can end into a sentence and an exit code (0, 1, 2, 3, 130)."""

import os
import select
import sys
import traceback
from contextlib import suppress

import typer

from smd_analyze.errors import SmdError

BUG, INTERRUPTED, READER_GONE = 1, 130, 141
WrongCall: type[typer.BadParameter] = typer.BadParameter.__mro__[2]  # ClickException: typer may bring its own click


def run(app: typer.Typer, words: list[str]) -> int:
    """Exit code of the command; errors that a person can mend are one sentence on stderr, without a traceback."""
    output = kept_output()
    try:
        code = typer.main.get_command(app).main(args=words, prog_name="smd-analyze", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except SmdError as error:
        typer.echo(f"error: {error}", err=True)
        return error.exit_code
    except typer.Exit as ended:
        return ended.exit_code
    except (BrokenPipeError, SystemExit):  # `smd-analyze … | head`: libraries turn the one into the other
        if not reader_has_gone(output):
            raise
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 (what is still buffered has nowhere to go)
        return READER_GONE
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
    finally:
        if output is not None:
            os.close(output)


def kept_output() -> int | None:
    """A descriptor of standard output that nobody redirects meanwhile; None where there is none (tests, notebooks)."""
    with suppress(OSError, ValueError, AttributeError):
        return os.dup(sys.stdout.fileno())
    return None


def reader_has_gone(output: int | None) -> bool:
    """Whether standard output is a pipe that nobody reads any more."""
    if output is None or not hasattr(select, "poll"):
        return False
    watched = select.poll()
    watched.register(output, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in watched.poll(0))
