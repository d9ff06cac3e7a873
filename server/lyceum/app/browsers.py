"""What a page of another origin may send and read (CORS): everything but cookies, since tokens are no cookies."""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

CORS = Middleware(
    CORSMiddleware,
    allow_origins=["*"],
    allow_methods=["GET", "POST"],
    allow_headers=["*"],
    expose_headers=["WWW-Authenticate", "Payment-Receipt", "Retry-After", "Link"],
)
