"""What went wrong, for clients of RFC 9457 and of OpenAI's API alike."""

from __future__ import annotations

from http import HTTPStatus

from lyceum.errors import LyceumError
from lyceum.wire.body import JsonObject


def problem_of(error: LyceumError) -> JsonObject:
    code = getattr(error, "reason", error.code)
    return problem(error.status, code, error.message, param=getattr(error, "param", None))


def problem(
    status: int, code: str, detail: str, *, kind: str = "about:blank", param: str | None = None, **more: object
) -> JsonObject:
    """RFC 9457's problem with a stable `code`; `error` says the same where clients of OpenAI's API look.

    `kind` is the problem's type, a URI. The codes are listed in plugin/README.md.
    """
    said = {"type": kind, "title": HTTPStatus(status).phrase, "status": status, "detail": detail, "code": code}
    error = {"message": detail, "type": _error_type(status), "param": param, "code": code}
    return said | more | {"error": error}


def _error_type(status: int) -> str:
    """OpenAI's four kinds of error."""
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "server_error"
    named = {HTTPStatus.PAYMENT_REQUIRED: "payment_required", HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error"}
    return named.get(HTTPStatus(status), "invalid_request_error")
