"""Sells the prime factors of a number for 100 msat: any HTTP service beside the node can sell by L402.

    LIGHTNING_RPC=~/.lightning/bitcoin/lightning-rpc uvicorn --app-dir contrib/examples factors:app

Knows nothing of Lyceum but two methods of the node: one reserves or refuses, one charges.
"""

import os

from pyln.client import LightningRpc
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

PRICE_MSAT = 100
MOST = 10**12
node = LightningRpc(os.environ["LIGHTNING_RPC"])


def factors(number: int) -> list[int]:
    for factor in range(2, int(number**0.5) + 1):
        if number % factor == 0:
            return [factor, *factors(number // factor)]
    return [number]


def sell(request: Request) -> Response:
    number = request.path_params["number"]
    if not 2 <= number <= MOST:
        return JSONResponse({"detail": f"ask for a number from 2 to {MOST}"}, 400)
    asked = {
        "service": "factors",
        "amount_msat": PRICE_MSAT,
        "authorization": request.headers.getlist("authorization"),
        "client": request.client.host if request.client else "",
    }
    answer = node.call("l402-admit", asked)
    if "limited" in answer:
        return JSONResponse(answer["limited"], 429, {"Retry-After": str(answer["limited"]["retry_after_s"])})
    if "declined" in answer:
        return _with(answer["declined"]["headers"], JSONResponse({"detail": answer["declined"]["detail"]}, 402))
    admitted, charge_msat = answer["admitted"], 0
    try:
        response = JSONResponse({"number": number, "factors": factors(number)})
        charge_msat = admitted["amount_msat"]  # the price at the node's share of the day
    finally:
        if admitted["reservation"]:  # there is none for a request that the node gives away
            node.call("l402-settle", {"reservation": admitted["reservation"], "charge_msat": charge_msat})
    return _with(admitted["headers"], response)


def _with(headers: list[list[str]], response: Response) -> Response:
    for name, value in headers:
        response.headers.append(name, value)
    return response


app = Starlette(routes=[Route("/factors/{number:int}", sell)])
