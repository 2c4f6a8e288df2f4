"""What can go wrong, each with the sentence that says what to do next. `exit_code` is what the command line returns."""


class SmdError(Exception):
    """An error that a person can mend; its text names the file, tensor or option and the remedy."""

    exit_code = 3


class NothingToAnalyse(SmdError):
    """No checkpoint was found, or none could be read."""


class UnknownFormat(SmdError):
    """The bytes of a file are of no format that is read here."""


class AmbiguousFormat(SmdError):
    """The bytes of a file are claimed by more than one format."""


class UnsafeFile(SmdError):
    """A file asks for something that reading data does not need: it is refused, not run."""


class DamagedFile(SmdError):
    """A file is truncated, or says things about itself that cannot be."""


class CannotWrite(SmdError):
    """An output could not be written."""


class Unreachable(SmdError):
    """The place where a file lies does not give it: no connection, no answer, or not in a way that can be used."""


class UsageError(SmdError):
    """The call itself must be changed: contradictory options, a model that cannot be imported, a missing extra."""

    exit_code = 2


class MissingLibrary(UsageError):
    """An optional library is needed; the text holds the pip line."""
