"""What a parser says about bytes that are not what the format promises."""

import errno


class FormatError(OSError):
    """On-disk bytes that break the format; `subject` names the object they belong to."""

    def __init__(self, subject: str, problem: str, *, code: int = errno.EILSEQ) -> None:
        super().__init__(code, f"{subject}: {problem}")
        self.subject = subject
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.subject}: {self.problem}"
