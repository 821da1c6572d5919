"""Errors that a user can mend.

    ValueError
    +-- UserError         a setting, argument, file or image that cannot be used
        +-- UsageError    a name given on the command line that nothing has; exit code 2
        +-- ModelError    a model or utility that failed on a coalition
        +-- ClusterError  a Ray cluster that cannot be reached, or nodes and workers that were lost
        +-- StorageError  (an OSError too) an object store that refuses or does not answer

Each has one line of text: what must hold, what was found, what to do. The command line prints that
line; an `OSError` of a named file is shown the same way. Every other exception is a bug, ours or
that of a user's own utility, and keeps its traceback.
"""


class UserError(ValueError):
    """Something a user can mend; the message is one line that says how."""


class UsageError(UserError):
    """A name that nothing has, such as a backbone; the message gives the nearest ones."""


class ModelError(UserError):
    """A model or utility failed on a coalition, which the message names."""


class ClusterError(UserError):
    """No Ray cluster, or one that lost what the work needs; running the command again resumes."""


class StorageError(UserError, OSError):
    """An object store refused a request or did not answer; the message begins with the URI."""


def can_be_mended(error: BaseException) -> bool:
    """Whether an error is a `UserError`, or an `OSError` that names its file.

    Libraries raise ValueErrors of their own, and OSErrors without a file, over our mistakes.
    """
    named = isinstance(error, OSError) and error.filename is not None
    return named or isinstance(error, UserError)
