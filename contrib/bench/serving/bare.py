"""The limit: one batched loop around llama_decode in a process of its own, without HTTP, text or queues.

    python bare.py MODEL SEQUENCES CELLS THREADS GPU_LAYERS

Reads one JSON request a line on stdin: {"prompts": [[...], ...], "tokens": n} as `load.burst` takes them, or
{"lengths": [...], "tokens": n} for how many tokens each prompt is answered with. Greedy, and deaf to the end token
in a burst. Answers one JSON line each.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

os.environ["GGML_NO_BACKTRACE"] = "1"

import llama_cpp.llama_cpp as c
import numpy as np
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

BATCH = 512
SILENT = c.llama_log_callback(lambda _level, _text, _data: None)


@dataclass(slots=True)
class Client:
    """One sequence: prompts to come, tokens of the present one not read yet, and when each answer's tokens came."""

    number: int
    prompts: list[list[int]]
    unread: list[int] = field(default_factory=list)
    position: int = 0
    answers: list[dict[str, Any]] = field(default_factory=list)
    row: int = -1
    ended: bool = False


class Loop:
    def __init__(self, model: str, sequences: int, cells: int, threads: int, gpu_layers: int) -> None:
        weights = c.llama_model_default_params()
        weights.n_gpu_layers = gpu_layers
        self.model = c.llama_model_load_from_file(model.encode(), weights)
        params = c.llama_context_default_params()
        params.n_ctx, params.n_seq_max, params.kv_unified = cells, sequences, True
        params.n_batch = params.n_ubatch = BATCH
        params.n_threads = params.n_threads_batch = threads
        params.no_perf = True
        self.context = c.llama_init_from_model(self.model, params)
        self.vocab = c.llama_model_get_vocab(self.model)
        self.size = c.llama_vocab_n_tokens(self.vocab)
        self.batch = c.llama_batch_init(BATCH, 0, 1)
        template = c.llama_model_chat_template(self.model, None).decode()
        self.render = Jinja2ChatFormatter(template, "", "")

    def tokens(self, prompt: str) -> list[int]:
        text = self.render(messages=[{"role": "user", "content": prompt}]).prompt.encode()
        room = (c.llama_token * (len(text) + 8))()
        count = c.llama_tokenize(self.vocab, text, len(text), room, len(room), False, True)
        return list(room[:count])

    def burst(self, prompts: Sequence[Sequence[str]], tokens: int, stop: bool = False) -> list[dict[str, Any]]:
        clients = [Client(number, [self.tokens(prompt) for prompt in row]) for number, row in enumerate(prompts)]
        for client in clients:
            self._begin(client)
        while live := [client for client in clients if not client.ended]:
            self._step(live, tokens, stop)
        return [answer for client in clients for answer in client.answers]

    def _begin(self, client: Client) -> None:
        c.llama_memory_seq_rm(c.llama_get_memory(self.context), client.number, 0, -1)
        client.ended = not client.prompts
        if client.prompts:
            client.unread, client.position = client.prompts.pop(0), 0
            client.answers.append({"client": client.number, "started": time.perf_counter(), "arrivals": []})

    def _step(self, live: Sequence[Client], tokens: int, stop: bool) -> None:
        """Those who write first, then as much of the prompts as fits."""
        self.batch.n_tokens = 0
        for client in sorted(live, key=lambda client: len(client.unread)):
            self._fill(client)
        if c.llama_decode(self.context, self.batch):
            sys.exit("llama_decode failed")
        now = time.perf_counter()
        for client in live:
            if client.row < 0:
                continue
            logits = np.ctypeslib.as_array(c.llama_get_logits_ith(self.context, client.row), shape=(self.size,))
            token = int(logits.argmax())
            arrivals = client.answers[-1]["arrivals"]
            over = stop and c.llama_vocab_is_eog(self.vocab, token)
            if not over:
                arrivals.append(now)
                client.unread = [token]
            if over or len(arrivals) == tokens:
                self._begin(client)

    def _fill(self, client: Client) -> None:
        batch, at = self.batch, self.batch.n_tokens
        taken = client.unread[: BATCH - at]
        client.unread = client.unread[len(taken) :]
        for offset, token in enumerate(taken):
            row = at + offset
            batch.token[row], batch.pos[row] = token, client.position + offset
            batch.n_seq_id[row], batch.seq_id[row][0] = 1, client.number
            batch.logits[row] = False
        client.position += len(taken)
        batch.n_tokens = at + len(taken)
        client.row = batch.n_tokens - 1 if taken and not client.unread else -1
        if client.row >= 0:
            batch.logits[client.row] = True


def main() -> None:
    c.llama_log_set(SILENT, ctypes.c_void_p(0))
    c.llama_backend_init()
    model, *numbers = sys.argv[1:]
    sequences, cells, threads, gpu_layers = map(int, numbers)
    loop = Loop(model, sequences, cells, threads, gpu_layers)
    loop.burst([["warm"]], 2)
    print(json.dumps({"system": c.llama_print_system_info().decode()}), flush=True)
    for line in sys.stdin:
        wanted = json.loads(line)
        if "lengths" in wanted:
            found: list[Any] = [
                len(answer["arrivals"])
                for start in range(0, len(wanted["lengths"]), sequences)
                for answer in loop.burst(
                    [[prompt] for prompt in wanted["lengths"][start : start + sequences]], wanted["tokens"], stop=True
                )
            ]
        else:
            found = loop.burst(wanted["prompts"], wanted["tokens"])
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
