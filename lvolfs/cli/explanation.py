"""An error as one line: the object, the reason, the way out where it is known."""

import os


def first_cause(error: BaseException) -> BaseException:
    """trio wraps what went wrong in a task; the first cause is what the user can act on."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def explain(error: BaseException) -> str:
    error = first_cause(error)
    text = str(error)
    if isinstance(error, OSError) and error.errno:
        text = error.strerror or os.strerror(error.errno)
        if error.filename is not None and str(error.filename) not in text:
            text = f"{error.filename}: {text}"
    return " ".join(text.split()) or type(error).__name__
