"""Every error of Lyceum, one tree. Raise where it happens, map once at each face.

LyceumError
├── CallerError             what was asked cannot be served as asked
│   ├── BadRequest            the request is malformed
│   ├── UnknownModel          no such model here
│   ├── TooLong               prompt, answer or body beyond the limits
│   ├── RateLimited           too often; try again later
│   ├── PaymentRequired       no usable credential; carries the reason (and a challenge)
│   ├── TokenRefused          no usable credential, where paying would not help; carries the reason
│   ├── BadAddress            a refund cannot be sent there
│   └── TooSmall              what is left on a token is too little to send
├── ServiceError            we, or something we rely on, cannot serve now
│   ├── Busy                  no capacity; try again
│   │   └── TooManyChallenges     too many invoices of ours are open and unpaid
│   ├── NodeError             the Lightning node refused a call or is unreachable
│   ├── PeerError             another server answered wrongly or not at all
│   └── ModelError            a model file or its run failed
├── BuyerError              money that was not, or may not have been, spent well
│   ├── OverBudget            it would cost more than was allowed; nothing was paid
│   ├── BadInvoice            the invoice fails a check; nothing was paid
│   ├── PaymentFailed         the node tried and failed; nothing was paid
│   ├── PaymentUnknown        the outcome is not known yet; counted as spent until it is
│   ├── Distrusted            the seller overcharged before and is not paid again
│   └── NoAnswer              no specialist could answer
└── ConfigError             a configuration that cannot be used
"""

from __future__ import annotations

from typing import ClassVar


class LyceumError(Exception):
    """Base of all. `status` is HTTP, `rpc_code` JSON-RPC, `exit_code` the shell's, `code` stable text."""

    status: ClassVar[int] = 500
    rpc_code: ClassVar[int] = 40000
    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "internal-error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class CallerError(LyceumError):
    status, rpc_code, exit_code, code = 400, 40100, 2, "bad-request"


class BadRequest(CallerError):
    """`param` names the offending field, when there is one."""

    rpc_code = 40101

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class UnknownModel(CallerError):
    status, rpc_code, code = 404, 40102, "model-not-found"


class TooLong(CallerError):
    status, rpc_code, code = 413, 40103, "too-long"


class RateLimited(CallerError):
    """`retry_after_s`: seconds after which there is room again."""

    status, rpc_code, code = 429, 40106, "rate-limited"

    def __init__(self, message: str, retry_after_s: int = 60) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class PaymentRequired(CallerError):
    """`reason` is the stable code of the refusal, such as `expired` or `exhausted`."""

    status, rpc_code, exit_code, code = 402, 40104, 4, "payment-required"

    def __init__(self, message: str, reason: str = "payment-required") -> None:
        super().__init__(message)
        self.reason = reason


class TokenRefused(CallerError):
    """`reason` is the stable code of the refusal."""

    status, rpc_code, exit_code, code = 401, 40110, 4, "token-refused"

    def __init__(self, message: str, reason: str = "token-refused") -> None:
        super().__init__(message)
        self.reason = reason


class BadAddress(CallerError):
    rpc_code, code = 40111, "bad-address"


class TooSmall(CallerError):
    status, rpc_code, code = 409, 40112, "too-small"


class ServiceError(LyceumError):
    status, rpc_code, code = 502, 40200, "service-error"


class Busy(ServiceError):
    """`retry_after_s`: seconds after which trying again makes sense."""

    status, rpc_code, code = 503, 40201, "busy"

    def __init__(self, message: str, retry_after_s: int = 2) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TooManyChallenges(Busy):
    rpc_code, code = 40205, "too-many-open-challenges"


class NodeError(ServiceError):
    """`node_code` is lightningd's own JSON-RPC error code, 0 when it never answered."""

    status, rpc_code, exit_code, code = 503, 40202, 6, "node-error"

    def __init__(self, message: str, node_code: int = 0) -> None:
        super().__init__(message)
        self.node_code = node_code


class PeerError(ServiceError):
    rpc_code, exit_code, code = 40203, 5, "peer-error"


class ModelError(ServiceError):
    status, rpc_code, code = 500, 40204, "model-error"


class BuyerError(LyceumError):
    status, rpc_code, exit_code, code = 502, 40300, 4, "payment-error"


class OverBudget(BuyerError):
    rpc_code, exit_code, code = 40301, 3, "over-budget"


class BadInvoice(BuyerError):
    rpc_code, code = 40302, "bad-invoice"


class PaymentFailed(BuyerError):
    rpc_code, code = 40303, "payment-failed"


class PaymentUnknown(BuyerError):
    rpc_code, code = 40304, "payment-unknown"


class Distrusted(BuyerError):
    rpc_code, code = 40306, "distrusted"


class NoAnswer(BuyerError):
    rpc_code, exit_code, code = 40305, 5, "no-answer"


class ConfigError(LyceumError):
    rpc_code, exit_code, code = 40400, 2, "bad-config"


def from_rpc(rpc_code: int, message: str) -> LyceumError | None:
    """The error that a plugin method raised, rebuilt on the caller's side; None if not one of ours."""
    return next((kind(message) for kind in _all(LyceumError) if kind.rpc_code == rpc_code), None)


def _all(kind: type[LyceumError]) -> list[type[LyceumError]]:
    return [kind, *(leaf for child in kind.__subclasses__() for leaf in _all(child))]
