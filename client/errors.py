"""What can go wrong between the user, their disk and the server; each with a sentence that says what to do next."""


class ClientError(Exception):
    """An error with a stable code, a title without a full stop, and a detail in whole sentences."""

    def __init__(self, code: str, title: str, detail: str, *, status: int | None = None) -> None:
        self.code = code
        self.title = title
        self.detail = detail
        self.status = status  # of the HTTP answer that told it; None when no answer did
        super().__init__(f"{title}. {detail}")

    @property
    def is_servers(self) -> bool:
        """Whether the server is at fault, or away: nothing about the picture or the command would help."""
        return self.status is not None and self.status >= 500

    def as_json(self) -> dict[str, str]:
        """The error as `--json` prints it."""
        return {"code": self.code, "title": self.title, "detail": self.detail}


class ProblemError(ClientError):
    """The server answered with a problem document (RFC 9457)."""

    def __init__(self, code: str, title: str, detail: str, *, status: int, retry_after_s: float | None = None) -> None:
        super().__init__(code, title, detail, status=status)
        self.retry_after_s = retry_after_s  # seconds after which the server expects to do better; None: it did not say


class ServerUnreachable(ClientError):
    """No answer came, or not to the end."""

    def __init__(self, base_url: str) -> None:
        super().__init__(
            "server_unreachable", f"No Lacuna answers at {base_url}", "Start it with `lacunad up`, or name another with --server."
        )

    @property
    def is_servers(self) -> bool:
        """Always."""
        return True


class UnexpectedAnswer(ClientError):
    """Something answered that does not speak Lacuna's API."""

    def __init__(self, base_url: str, status: int) -> None:
        super().__init__(
            "unexpected_answer",
            f"What answers at {base_url} does not seem to be Lacuna",
            f"It said {status} in a form that Lacuna does not use. Check the address, or name another with --server.",
            status=status,
        )

    @property
    def is_servers(self) -> bool:
        """Always."""
        return True


class Stopped(Exception):
    """The user stopped the program; nothing is left to do but to tidy up."""
