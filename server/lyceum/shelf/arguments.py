"""What can be typed after `lyceum models`. Light: the parser is made for every command, the work is imported later."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

RULES = """\
how a table is proposed:
  name, field  what the file says of itself (title, description, topics); where it has no description, what the
               catalogue says, or with --library the names of the folder and of its texts
  n_ctx        what the model was trained on, at most 8,192 tokens, and no more than free memory holds
  max_tokens   three eighths of that, at most 1,024
  price        100 msat, 200 per 1,000 characters read and 1,000 per 1,000 written, each for every started GB of file
  library_use  "quote" for a model trained on 1,024 tokens or less, which is too small to read passages
Only what differs from the server's defaults or is not in the file is written. Edit the table as you like."""


def add_models(commands: Any, exits: str) -> None:
    """The parser of `lyceum models`; `commands` are argparse's subparsers."""
    models = commands.add_parser(
        "models",
        help="the models of a configuration: list, pull, add, quantize, check, remove",
        description="The GGUF files that this machine serves, and the configuration that names them.",
        epilog=_example(
            "pull qwen2.5-coder-1.5b            # from the catalogue: lyceum models list --catalogue",
            "add models/Qwen2.5-Coder-1.5B-Instruct-Q4_K_M.gguf",
            "check qwen2.5-coder-1.5b           # does it run here, and how fast?",
        )
        + f"\n\n{exits}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    inner = models.add_subparsers(required=True, metavar="subcommand")

    listing = _subcommand(inner, "list", "what is configured, and what is wrong with it", "list", "list --catalogue")
    listing.add_argument("--catalogue", action="store_true", help="the specialists that `pull` knows by name instead")

    pull = _subcommand(
        inner,
        "pull",
        "fetch a model file; broken off, the same command goes on where it stopped",
        "pull qwen2.5-coder-1.5b",
        "pull hf:Qwen/Qwen3-Embedding-0.6B-GGUF/Qwen3-Embedding-0.6B-Q8_0.gguf",
        "pull https://example.org/law.Q4_K_M.gguf --sha256 2c7fbe11...",
        more="HF_TOKEN, HF_HOME and HF_ENDPOINT are honoured. The file is NAME.part until it is whole and its SHA-256"
        "\nright: the catalogue's, else --sha256, else what the hub states.",
    )
    pull.add_argument("what", metavar="NAME|hf:OWNER/REPO/FILE[@REVISION]|URL")
    pull.add_argument("--to", type=Path, metavar="DIR", help="default: models/ beside the configuration")
    pull.add_argument("--sha256", default="", metavar="HEX", help="the digest that the file must have")

    add = _subcommand(
        inner,
        "add",
        "propose a table for a GGUF file, and write it into the configuration",
        "add models/law.Q4_K_M.gguf --name law",
        "add --base models/qwen.gguf --library ~/recipes --system 'Answer briefly.'",
        "add --base models/qwen.gguf --lora pirate.gguf --price 100,200,500",
        more=f"{RULES}\n\nThe same name and library again: what changed in the folder is read anew, nothing else.",
    )
    add.add_argument("file", type=Path, nargs="?", help="the GGUF file")
    add.add_argument("--base", type=Path, metavar="FILE", help="the same, where a library or an adapter goes on top")
    add.add_argument("--name", default="", help="what buyers call it")
    add.add_argument("--library", type=Path, metavar="DIR", help="a folder of .md, .txt and .pdf files to answer from")
    add.add_argument(
        "--use", choices=("context", "quote"), help="passages go into the prompt, or are quoted as they are"
    )
    add.add_argument("--system", default="", metavar="TEXT", help="a standing instruction, at your cost")
    add.add_argument("--lora", type=Path, metavar="FILE", help="an adapter over the base")
    add.add_argument("--price", type=_price, metavar="BASE,IN,OUT", help="msat: an answer, 1,000 characters in, out")
    add.add_argument("--yes", action="store_true", help="write without asking")

    quantize = _subcommand(
        inner,
        "quantize",
        "write a model in smaller numbers, by llama.cpp's own quantiser",
        "quantize models/law.F16.gguf Q4_K_M",
        more="A file that is quantised already is refused, since it would lose twice; so is a target that exists.",
    )
    quantize.add_argument("source", type=Path)
    quantize.add_argument("type", help="such as Q8_0, Q6_K, Q5_K_M, Q4_K_M")
    quantize.add_argument("--to", type=Path, metavar="FILE", help="default: beside the source, the type in its name")

    check = _subcommand(
        inner,
        "check",
        "load a model here, ask it something, and measure",
        "check law",
        "check models/law.Q4_K_M.gguf",
        more="Answered is one question about its first topic, by the bare model: without its library, system text and\n"
        "refusals. A model that does not load ends with one line and the error's exit code.",
    )
    check.add_argument("what", metavar="NAME|FILE")

    remove = _subcommand(
        inner, "remove", "take a model out of the configuration", "remove law", "remove law --delete-file"
    )
    remove.add_argument("name")
    remove.add_argument(
        "--delete-file",
        action="store_true",
        help="also its GGUF files and index, if no other model uses them; a library's texts always stay",
    )


def _subcommand(inner: Any, name: str, summary: str, *examples: str, more: str = "") -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = inner.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=_example(*examples) + (f"\n\n{more}" if more else ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, default=Path("lyceum.toml"), help="default: lyceum.toml")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=_later(name))
    return parser


def _later(name: str) -> Callable[[Any], int]:
    def command(options: Any) -> int:
        from lyceum.shelf import commands  # noqa: PLC0415  (needs the server extra)

        return commands.COMMANDS[name](options)

    return command


def _example(*lines: str) -> str:
    return "\n".join([f"example{'s' if len(lines) > 1 else ''}:", *(f"  lyceum models {line}" for line in lines)])


def _price(word: str) -> tuple[int, int, int]:
    parts = word.split(",")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"{word!r} is no price: three numbers of msat, such as 100,200,1000")
    base, read, written = map(int, parts)
    return base, read, written
