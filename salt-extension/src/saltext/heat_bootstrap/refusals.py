"""
Everything that is answered instead of what was asked for.
"""

from __future__ import annotations

STATUS = {
    "malformed": 400,
    "token-unknown": 401,
    "token-wrong": 401,
    "signature-wrong": 401,
    "token-expired": 403,
    "token-used-up": 403,
    "token-revoked": 403,
    "id-not-allowed": 403,
    "state-not-allowed": 403,
    "deregister-not-allowed": 403,
    "not-enrolled": 403,
    "clock-skew": 403,
    "not-found": 404,
    "key-conflict": 409,
    "key-rejected": 409,
    "replayed": 409,
    "too-large": 413,
    "busy": 503,
    "unavailable": 503,
}


class Refused(Exception):
    """
    What was asked for is not granted: a word for the agent, a sentence and perhaps a hint for a person.
    """

    def __init__(
        self,
        word: str,
        message: str,
        hint: str | None = None,
        *,
        status: int | None = None,
        skew: int | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.word = word
        self.message = message
        self.hint = hint
        self.status = STATUS[word] if status is None else status
        self.skew = skew
        self.retry_after = retry_after


class Unavailable(Exception):
    """
    Something that the service needs does not answer; the cause is for the log, never for the VM.
    """
