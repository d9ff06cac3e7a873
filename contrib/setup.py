"""Makes .venv with everything Lyceum needs, on a machine that has Python, git and a C++ compiler.

    python3 contrib/setup.py [--dev]

llama-cpp-python comes as source. Its lean build (no multimodal code, no OpenSSL, no `common`
library) takes about two minutes on two cores; a line shows how far it is. Standard library only.
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BUILD = ROOT / "build" / "llama"
EXTRAS = ["--extra", "server", "--extra", "devnet"]


def main() -> None:
    check_machine()
    uv = install_uv()
    groups = ["--group", "dev"] if "--dev" in sys.argv[1:] else ["--no-dev"]
    command = [uv, "sync", "--locked", "--inexact", "--quiet", "--python", str(VENV / "bin" / "python")]
    install([*command, *EXTRAS, *groups])


def check_machine() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036  (run by whatever python3 is)
        sys.exit(f"Lyceum needs Python 3.11 or newer; this is {sys.version.split()[0]}. Try: make PYTHON=python3.11")
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        sys.exit("Lyceum compiles llama.cpp and finds no C++ compiler. On Debian: apt install g++")


def install_uv() -> str:
    """The pinned packages of uv.lock are installed by uv, which goes into the same .venv."""
    uv = VENV / "bin" / "uv"
    if not uv.exists():
        print("Making .venv ...", flush=True)
        run([sys.executable, "-m", "venv", str(VENV)])
        run([str(VENV / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", "uv"])
    return str(uv)


def install(command: list[str]) -> None:
    lean = (
        f"-DLLAVA_BUILD=OFF -DLLAMA_OPENSSL=OFF -DCMAKE_PROJECT_llama.cpp_INCLUDE={ROOT}/contrib/llama/nocommon.cmake"
    )
    arguments = f"{os.environ.get('CMAKE_ARGS', '')} {lean}".strip()
    environment = {**os.environ, "CMAKE_ARGS": arguments, "SKBUILD_BUILD_DIR": str(BUILD)}
    environment["UV_PROJECT_ENVIRONMENT"] = str(VENV)
    environment.pop("VIRTUAL_ENV", None)
    over = threading.Event()
    watcher = threading.Thread(target=watch, args=(over,))
    watcher.start()
    try:
        run(command, environment)
    finally:
        over.set()
        watcher.join()


def watch(over: threading.Event) -> None:
    """One line that says how many of llama.cpp's files are compiled; none when nothing is built."""
    started, seen = time.monotonic(), progress()
    shown = False
    while not over.wait(1):
        done, total = progress()
        if (done, total) == seen or not total:
            continue
        shown = True
        elapsed = int(time.monotonic() - started)
        line = f"Compiling llama.cpp: {done} of {total} files, {elapsed // 60}:{elapsed % 60:02} min"
        print(f"\r{line}" if sys.stdout.isatty() else line, end="" if sys.stdout.isatty() else "\n", flush=True)
        if not sys.stdout.isatty():
            seen = done, total
            over.wait(9)
    if shown and sys.stdout.isatty():
        print()


def progress() -> tuple[int, int]:
    """Files compiled and files in all, as ninja's own log and plan in the build folder say."""
    log, plan = BUILD / ".ninja_log", BUILD / "build.ninja"
    if not plan.exists():
        return 0, 0
    total = sum(
        1 for line in plan.read_text(errors="replace").splitlines() if line.startswith("build ") and ".o:" in line
    )
    done = {line.split("\t")[3] for line in log.read_text().splitlines()[1:]} if log.exists() else set()
    return sum(1 for name in done if name.endswith(".o")), total


def run(command: list[str], environment: dict[str, str] | None = None) -> None:
    try:
        subprocess.run(command, env=environment, cwd=ROOT, check=True)
    except subprocess.CalledProcessError as error:
        sys.exit(f"set-up failed: {' '.join(command)} ended with {error.returncode}; its message is above")


if __name__ == "__main__":
    main()
