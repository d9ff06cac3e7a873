"""The `lyceum` command: a thin face over the node's plugin, the server and the demo.

JSON when asked for or when piped, tables and streamed text on a terminal. Every error is one line
on stderr and its own exit code.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

from lyceum import config, csvfile, tables
from lyceum.errors import BuyerError, ConfigError, LyceumError, NoAnswer, OverBudget
from lyceum.node import call, connect
from lyceum.shelf.arguments import add_models

EXITS = """\
exit codes:
  0  done
  1  something went wrong that is not listed here
  2  wrong usage or configuration
  3  the budget does not suffice
  4  a payment failed, or its outcome is not known yet
  5  nobody could answer
  6  the Lightning node cannot be reached or refused

The node is found by --node, else by LYCEUM_NODE, else at ~/.lightning/bitcoin/lightning-rpc.
Output is JSON with --json, and whenever it does not go to a terminal.
"""
DEFAULT_NODE = "~/.lightning/bitcoin/lightning-rpc"
DEFAULT_BUDGET_MSAT = 20_000
PAYMENT_CODES = frozenset({"payment-error", "bad-invoice", "payment-failed", "payment-unknown"})


def main() -> None:
    sys.exit(run(sys.argv[1:]))


def run(words: Sequence[str]) -> int:
    """Run one command line; returns its exit code. argparse exits by itself with 2 on wrong usage."""
    options = _parser().parse_args(words)
    options.json = getattr(options, "json", False) or not sys.stdout.isatty()
    try:
        return int(options.command(options))
    except LyceumError as error:
        print(f"lyceum: {error.message}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as missing:
        print(f"lyceum: {missing}; this command needs: pip install 'cln-lyceum[server,devnet]'", file=sys.stderr)
        return ConfigError.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lyceum",
        description="Sell, buy and consult specialised language models over the Lightning Network.",
        epilog=EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"lyceum {version('cln-lyceum')}")
    commands = parser.add_subparsers(required=True, metavar="command")

    demo = _command(commands, "demo", _demo, "three nodes on this machine: ask, pay two sellers, get one answer")
    demo.add_argument("question", nargs="?", help="ask this instead of the three questions of the demo")
    demo.add_argument("--network", choices=("loopback", "regtest"), default="loopback", help="default: loopback")
    _budget(demo)

    serve = _command(commands, "serve", _serve, "serve the models of a configuration file, paid through your node")
    serve.add_argument("--config", type=Path, default=Path("lyceum.toml"), help="default: lyceum.toml")

    ask = _command(commands, "ask", _ask, "ask the specialists of your node's peers, and pay them")
    ask.add_argument("question")
    _budget(ask)
    _node(ask)

    _node(_command(commands, "offers", _offers, "list the specialists that your node's peers sell, with prices"))

    trust = _command(commands, "trust", _trust, "ask and pay a seller again that was refused because it overcharged")
    trust.add_argument("url")
    _node(trust)

    bill = _command(commands, "bill", _bill, "what was bought from whom, by seller and model, in msat")
    bill.add_argument("--since", default="0", metavar="DATE", help="from this day on, such as 2026-11-01; default: all")
    _node(bill)

    export = _command(commands, "export", _export, "what was sold and bought, as CSV", json=False)
    export.epilog = "columns:\n" + "".join(f"  {name:13} {what}\n" for name, what in csvfile.COLUMNS.items())
    export.add_argument(
        "--since", default="0", metavar="DATE", help="from this day on, such as 2026-11-01; default: all"
    )
    export.add_argument("--out", type=Path, metavar="FILE", help="a new file; default: to the terminal or the pipe")
    _node(export)

    prune = _command(commands, "prune", _prune, "forget what was bought answer by answer; payments and tokens stay")
    prune.add_argument("--before", required=True, metavar="DATE", help="such as 2026-11-01")
    _node(prune)

    add_models(commands, EXITS)

    init = _command(commands, "init", _init, "write a commented starter configuration")
    init.add_argument("path", type=Path, nargs="?", default=Path("lyceum.toml"), help="default: lyceum.toml")
    return parser


def _command(
    commands: Any, name: str, action: Callable[[Any], int], summary: str, *, json: bool = True
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=summary, epilog=EXITS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if json:
        parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=action)
    return parser


def _budget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--budget-msat",
        type=_msat,
        default=DEFAULT_BUDGET_MSAT,
        metavar="MSAT",
        help=f"most that may leave the wallet for one question, routing fees included; default {DEFAULT_BUDGET_MSAT}",
    )


def _node(parser: argparse.ArgumentParser) -> None:
    default = os.environ.get("LYCEUM_NODE", DEFAULT_NODE)
    parser.add_argument("--node", type=Path, default=Path(default), metavar="SOCKET", help=f"default: {default}")


def _msat(word: str) -> int:
    if not word.isascii() or not word.isdigit():
        raise argparse.ArgumentTypeError(f"{word!r} is not a number of msat, such as 20000")
    return int(word)


# The commands


def _demo(options: Any) -> int:
    from lyceum import demo  # noqa: PLC0415  (starts processes; the other commands do without it)

    say = _silent if options.json else _show
    questions = [options.question] if options.question else demo.QUESTIONS
    with demo.open_stage(options.network, say) as stage:
        say(demo.notice(stage.network))
        answers = []
        for question in questions:
            say(f"\n> {question}\n\n")
            answers.append(stage.ask(question, options.budget_msat, say))
            say(f"\n\n{demo.report(stage, answers[-1])}")
    if options.json:
        print(json.dumps(answers[0] if options.question else {"asks": answers}))
    for answer in answers:
        _check_answered(answer)
    if not all(demo.adds_up(answer) for answer in answers):
        raise LyceumError("the balances do not add up; this is a bug")
    return 0


def _serve(options: Any) -> int:
    from lyceum import service  # noqa: PLC0415  (needs the server extra: llama-cpp-python, Starlette)

    return service.run(config.load(options.config))


def _ask(options: Any) -> int:
    rpc = connect(options.node.expanduser())
    request = {"question": options.question, "budget_msat": options.budget_msat}
    if options.json:
        answer = call(rpc, "lyceum-ask", request)
        print(json.dumps(answer))
    else:
        with rpc.notify(lambda message, **_: _show(message)):
            answer = call(rpc, "lyceum-ask", request)
        _show(f"\n\n{tables.members(answer, {})}\n")
    _check_answered(answer)
    return 0


def _offers(options: Any) -> int:
    found = call(connect(options.node.expanduser()), "lyceum-models")
    if options.json:
        print(json.dumps(found))
        return 0
    heads = ("model", "node", "msat", "per 1k in", "per 1k out", "unit", "context", "answer", "description")
    print(tables.render(heads, [_offer_row(model) for model in found["models"]]))
    return 0


def _trust(options: Any) -> int:
    found = call(connect(options.node.expanduser()), "lyceum-trust", {"url": options.url})
    said = "is trusted again" if found["trusted_now"] else "was not refused"
    print(json.dumps(found) if options.json else f"{found['origin']} {said}")
    return 0


def _bill(options: Any) -> int:
    found = call(connect(options.node.expanduser()), "lyceum-bill", {"since": options.since})
    print(json.dumps(found) if options.json else tables.bill(found["bill"]))
    return 0


def _export(options: Any) -> int:
    rest = _postings(connect(options.node.expanduser()), options.since)
    postings = chain(list(islice(rest, 1)), rest)  # what goes wrong goes wrong before a file is made
    if options.out is None:
        csvfile.write(sys.stdout, postings)
        return 0
    with _new_file(options.out) as file:
        rows = csvfile.write(file, postings)
    found = {"written": str(options.out), "rows": rows}
    print(json.dumps(found) if options.json else f"wrote {options.out}: {rows:,} rows")
    return 0


def _postings(rpc: Any, since: str) -> Iterator[Mapping[str, Any]]:
    """Page by page, so that neither the node nor we hold a large book at once."""
    at: str | int = since
    mark = ""
    while page := call(rpc, "l402-export", {"since": at, "after": mark})["postings"]:
        yield from page
        at, mark = page[-1]["at"], page[-1]["mark"]


def _prune(options: Any) -> int:
    found = call(connect(options.node.expanduser()), "lyceum-prune", {"before": options.before})
    print(json.dumps(found) if options.json else f"{found['pruned']:,} answers forgotten")
    return 0


def _init(options: Any) -> int:
    with _new_file(options.path) as file:
        file.write(config.STARTER)
    print(
        json.dumps({"written": str(options.path)})
        if options.json
        else f"wrote {options.path}; edit it, then: lyceum serve --config {options.path}"
    )
    return 0


@contextmanager
def _new_file(path: Path) -> Iterator[TextIO]:
    """Raises ConfigError for one that exists, or that cannot be written."""
    try:
        with path.open("x", encoding="utf-8", newline="") as file:
            yield file
    except FileExistsError:
        raise ConfigError(f"{path} exists and is left as it is; name another file") from None
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None


# Output


def _show(words: str) -> None:
    """To the terminal at once, without the control characters that a seller may have put into its answer."""
    print("".join(char for char in words if char.isprintable() or char in "\n\t"), end="", flush=True)


def _silent(_: str) -> None:
    pass


def _offer_row(model: Mapping[str, Any]) -> tuple[str | int, ...]:
    price, limits = model["price"], model["limits"]
    return (
        model["model"],
        model["node_id"][:12],
        price["base_msat"],
        price["input_per_1k_msat"],
        price["output_per_1k_msat"],
        price["unit"],
        limits["context_tokens"],
        limits["max_tokens"],
        f"REFUSED: {model['complaint']}" if model["complaint"] else model["description"][:48],
    )


def _check_answered(answer: Mapping[str, Any]) -> None:
    """Raises what best explains that nobody answered; a partial answer is an answer."""
    if answer["finish"] != "error":
        return
    reasons = "; ".join(f"{member['model']}: {member['error']}" for member in answer["members"])
    codes = {member["code"] for member in answer["members"]}
    if codes == {OverBudget.code}:
        raise OverBudget(f"the budget does not suffice: {reasons}")
    if codes & PAYMENT_CODES:
        raise BuyerError(f"nobody was paid successfully: {reasons}")
    raise NoAnswer(f"nobody could answer: {reasons}")
