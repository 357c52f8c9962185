"""The two ways a command ends early on purpose. Anything else that escapes is our bug (exit status 1)."""


class UserError(Exception):
    """Something a person can put right: shown as one sentence without a traceback, exit status 2.

    The sentence reads ``where: what; do``. ``what`` says what is wrong, with the numbers; ``where`` names the
    file, layer or option; ``do`` says what to do about it. No full stop.
    """

    def __init__(self, what: str, *, where: object = None, do: str | None = None) -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.do = do
        super().__init__(what)

    def __str__(self) -> str:
        sentence = self.what if self.where is None else f"{self.where}: {self.what}"
        return sentence if self.do is None else f"{sentence}; {self.do}"


class Interrupted(BaseException):
    """The user, or the machine (SIGTERM), asked us to stop: exit status 130. Finished work stays whole."""


def listed(names: list[str], *, most: int = 3) -> str:
    """The first few names in quotes, then how many more: ``"a", "b" and 14 more``."""
    shown = ", ".join(f'"{name}"' for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
