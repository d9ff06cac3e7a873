"""Makes .venv with everything Lyceum needs, on a machine that has Python, git and a C++ compiler.

    python3 contrib/setup.py [--dev]

llama-cpp-python comes as source. Its lean build (no multimodal code, no OpenSSL, no `common`
library) takes about two minutes on two cores, shows how far it is, and is kept for the next
checkout, by version and processor: what is built here may use instructions that another machine
lacks. Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
BUILD = ROOT / "build" / "llama"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lyceum"
PACKAGE = "llama-cpp-python"
LEAN = ("-DLLAVA_BUILD=OFF", "-DLLAMA_OPENSSL=OFF")
NO_COMMON = f"-DCMAKE_PROJECT_llama.cpp_INCLUDE={ROOT}/contrib/llama/nocommon.cmake"
REPORT_S = 10


def main() -> None:
    check_machine()
    make_venv()
    groups = ["--group", "dev"] if "--dev" in sys.argv[1:] else ["--no-dev"]
    uv = [str(BIN / "uv"), "--quiet"]
    environment = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(BIN.parent), "VIRTUAL_ENV": str(BIN.parent)}
    sync = ["sync", "--locked", "--inexact", "--extra", "server", "--extra", "devnet"]
    run([*uv, *sync, *groups, "--no-install-package", PACKAGE], environment)
    run([*uv, "pip", "install", "--no-deps", str(llama_wheel())], environment)


def check_machine() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036  (run by whatever python3 is)
        sys.exit(f"Lyceum needs Python 3.11 or newer; this is {platform.python_version()}. Try: make PYTHON=python3.11")
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        sys.exit("Lyceum compiles llama.cpp and finds no C++ compiler. On Debian: apt install g++")


def make_venv() -> None:
    """The pinned packages of uv.lock are installed by uv, which goes into the same .venv."""
    if (BIN / "uv").exists():
        return
    print("Making .venv ...", flush=True)
    run([sys.executable, "-m", "venv", str(BIN.parent)])
    run([str(BIN / "pip"), "install", "--quiet", "--disable-pip-version-check", "uv"])


def llama_wheel() -> Path:
    """The wheel for this version and processor: kept from an earlier build, else built now."""
    version, digest = locked()
    kept = CACHE / f"{PACKAGE}-{version}-{processor()}"
    if not any(kept.glob("*.whl")):
        BUILD.parent.mkdir(exist_ok=True)
        requirement = BUILD.parent / "llama.txt"
        requirement.write_text(f"{PACKAGE}=={version} --hash={digest}\n")
        fresh = compile_wheel(requirement)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(kept, ignore_errors=True)
        shutil.move(fresh, kept)
    return next(kept.glob("*.whl"))


def locked() -> tuple[str, str]:
    """Version and source digest that uv.lock pins."""
    import tomllib  # noqa: PLC0415  (an older Python must get as far as check_machine)

    packages = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]
    found = next(package for package in packages if package["name"] == PACKAGE)
    return found["version"], found["sdist"]["hash"]


def processor() -> str:
    """A name for what this processor can do and how we build for it."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(errors="replace").splitlines() if listed.exists() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return hashlib.sha256(f"{platform.machine()} {flags} {LEAN}".encode()).hexdigest()[:12]


def compile_wheel(requirement: Path) -> Path:
    target = BUILD.parent / "wheel"
    for folder in (BUILD, target):
        shutil.rmtree(folder, ignore_errors=True)
    arguments = " ".join((os.environ.get("CMAKE_ARGS", ""), *LEAN, NO_COMMON)).strip()
    environment = {**os.environ, "CMAKE_ARGS": arguments, "SKBUILD_BUILD_DIR": str(BUILD)}
    wheel = [str(BIN / "pip"), "wheel", "--quiet", "--no-cache-dir", "--no-deps", "--require-hashes"]
    over = threading.Event()
    watcher = threading.Thread(target=watch, args=(over,))
    watcher.start()
    try:
        run([*wheel, "--wheel-dir", str(target), "-r", str(requirement)], environment)
    finally:
        over.set()
        watcher.join()
    return target


def watch(over: threading.Event) -> None:
    """One line that says how far the compiler is; on a terminal it changes in place."""
    started, terminal = time.monotonic(), sys.stdout.isatty()
    while not over.wait(1 if terminal else REPORT_S):
        done, total = progress()
        elapsed = int(time.monotonic() - started)
        line = f"Compiling llama.cpp: {done} of {total or '?'} files, {elapsed // 60}:{elapsed % 60:02} min"
        print(f"\r{line}" if terminal else line, end="" if terminal else "\n", flush=True)
    if terminal:
        print()


def progress() -> tuple[int, int]:
    """Files compiled and files in all, as ninja's own log and plan in the build folder say."""
    log, plan = BUILD / ".ninja_log", BUILD / "build.ninja"
    if not plan.exists():
        return 0, 0
    lines = plan.read_text(errors="replace").splitlines()
    total = sum(1 for line in lines if line.startswith("build ") and ".o:" in line)
    done = {line.split("\t")[3] for line in log.read_text().splitlines()[1:]} if log.exists() else set()
    return sum(1 for name in done if name.endswith(".o")), total


def run(command: list[str], environment: dict[str, str] | None = None) -> None:
    try:
        subprocess.run(command, env=environment, cwd=ROOT, check=True)
    except subprocess.CalledProcessError as error:
        sys.exit(f"set-up failed: {' '.join(command)} ended with {error.returncode}; its message is above")


if __name__ == "__main__":
    main()
