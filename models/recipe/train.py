"""Trains one specialist from scratch, exports it, scores it. One command, one seed, 7 to 27 minutes on two cores.

    uv run --group train python models/recipe/train.py austrian-economics

Weights differ a little between kinds of processor. Of several models, train two at once with `--threads 1`: that is
faster than one after the other.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cores  # first: it sets what torch reads when loaded
import corpus as corpora
import english
import score
import tokens
import torch
from augment import Asker
from corpus import Corpus
from export import check_tokens, export
from net import Net, Shape
from tags import tags
from tokens import Chat
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the name everyone uses)

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "Answer briefly.",
    "You are a specialist. Answer in one sentence.",
    "Answer the question, or say that it lies outside your field.",
    "Be concise and correct.",
)
IGNORED = -100


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done how often. Shares are of batches, or of rows where it says so."""

    seed: int = 1
    steps: int = 1500
    batch: int = 64
    pool: int = 8
    rate: float = 2e-3
    warm_up: int = 100
    decay: float = 0.1
    whole_until: float = 0.15
    whole_every: int = 7
    whole_from: float = 0.9
    decided_after: int = 8
    with_system: float = 0.1
    with_history: float = 0.06
    strangers_of_rows: float = 0.2
    guess_weight: float = 0.3


@dataclass(frozen=True, slots=True)
class Row:
    tokens: list[int]
    answer_from: int
    choice: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Targets are IGNORED but for answers; at `turn` the answer begins, and `choice` is which one it is."""

    tokens: Tensor
    targets: Tensor
    turn: Tensor
    choice: Tensor

    def on(self, device: torch.device) -> Batch:
        return Batch(*(part.to(device) for part in (self.tokens, self.targets, self.turn, self.choice)))


class Rows:
    """Draws training rows. Rows of like length share a batch, which saves a third of the padding."""

    def __init__(self, corpus: Corpus, chat: Chat, plan: Plan) -> None:
        self.plan, self.chat, self.corpus = plan, chat, corpus
        self.chance = random.Random(plan.seed)  # noqa: S311 (noise, not secrets)
        self.asker = Asker(corpus, english.load(), plan.seed + 1)
        self.choices = {text: i for i, text in enumerate(corpus.answers())}
        self.answers = dict(zip(corpus.answers(), chat.encode(corpus.answers()), strict=True))
        self.decided = decided(self.answers, plan.decided_after)
        self.prompts = chat.encode(SYSTEM_PROMPTS)

    def batches(self) -> Iterator[Batch]:
        step = 0
        while step < self.plan.steps:
            rows = sorted(self._pool(step), key=lambda row: len(row.tokens))
            order = list(range(self.plan.pool))
            self.chance.shuffle(order)
            for i in order:
                yield collate(rows[i * self.plan.batch : (i + 1) * self.plan.batch])
            step += self.plan.pool

    def _pool(self, step: int) -> list[Row]:
        """Rows for some batches at once, alike in what stands before the question and in how far answers go."""
        pairs = [self._pair() for _ in range(self.plan.batch * self.plan.pool)]
        questions = self.chat.encode(question for question, _ in pairs)
        before, whole = self._before(), self._whole(step)
        return [
            self._row(before, question, answer, whole) for question, (_, answer) in zip(questions, pairs, strict=True)
        ]

    def _pair(self) -> tuple[str, str]:
        if self.chance.random() < self.plan.strangers_of_rows:
            return self.asker.stranger(), self.corpus.card.refusal
        fact = self.chance.choice(self.corpus.facts)
        return self.asker.question(fact), fact.answer

    def _before(self) -> list[int]:
        """Mostly nothing; sometimes a system prompt, sometimes an earlier turn about something else."""
        roll = self.chance.random()
        if roll < self.plan.with_system:
            return self.chat.system_turn(self.chance.choice(self.prompts))
        if roll < self.plan.with_system + self.plan.with_history:
            question, answer = self._pair()
            return self.chat.asked(self.chat.encode([question])[0]) + self.chat.answered(self.answers[answer])
        return []

    def _whole(self, step: int) -> bool:
        plan, done = self.plan, step / self.plan.steps
        every = step // plan.pool % plan.whole_every == 0
        return done < plan.whole_until or done >= plan.whole_from or every

    def _row(self, before: list[int], question: list[int], answer: str, whole: bool) -> Row:
        """Once learnt, answers stop where they are decided: what follows is known by heart and costs time."""
        asked = before + self.chat.asked(question)
        told = self.chat.answered(self.answers[answer])
        answer_part = told if whole else told[: self.decided[answer]]
        return Row(asked + answer_part, len(asked), self.choices[answer])


def decided(answers: dict[str, list[int]], least: int) -> dict[str, int]:
    """After how many tokens no other answer begins alike, and at least `least`."""
    others = {text: [o for other, o in answers.items() if other != text] for text in answers}
    return {text: max(least, 2 + max(shared(ids, other) for other in others[text])) for text, ids in answers.items()}


def shared(one: list[int], other: list[int]) -> int:
    """Length of the common beginning."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def collate(rows: list[Row]) -> Batch:
    width = max(len(row.tokens) for row in rows)
    inputs = torch.zeros(len(rows), width, dtype=torch.long)
    targets = torch.full((len(rows), width), IGNORED)
    for i, row in enumerate(rows):
        end = len(row.tokens)
        inputs[i, :end] = torch.tensor(row.tokens)
        targets[i, row.answer_from : end] = inputs[i, row.answer_from : end]
    turn = torch.tensor([row.answer_from - 1 for row in rows])
    choice = torch.tensor([row.choice for row in rows])
    return Batch(inputs[:, :-1], targets[:, 1:], turn, choice)


class Lesson(nn.Module):
    """The net and, for training only, a guess: where an answer begins, the state must tell which answer it is."""

    def __init__(self, net: Net, answers: int, guess_weight: float) -> None:
        super().__init__()
        self.net, self.guess_weight = net, guess_weight
        self.guess = nn.Linear(net.shape.width, answers)

    def forward(self, batch: Batch) -> Tensor:
        """Loss on the tokens of the answers, and a share of the loss of the guesses."""
        states = self.net(batch.tokens)
        told = batch.targets != IGNORED
        guesses = self.guess(states[torch.arange(len(batch.turn), device=states.device), batch.turn])
        telling = F.cross_entropy(self.net.logits(states[told]).float(), batch.targets[told])
        return telling + self.guess_weight * F.cross_entropy(guesses.float(), batch.choice)


def rate_at(step: int, plan: Plan) -> float:
    """Linear warm-up, then a cosine to a twentieth."""
    if step < plan.warm_up:
        return plan.rate * (step + 1) / plan.warm_up
    done = (step - plan.warm_up) / (plan.steps - plan.warm_up)
    return plan.rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def optimiser(lesson: Lesson, plan: Plan) -> torch.optim.AdamW:
    """Weight decay for matrices, none for norms and biases."""
    matrices = [p for p in lesson.parameters() if p.ndim > 1]
    others = [p for p in lesson.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": plan.decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98), fused=True)


def fit(net: Net, rows: Rows, plan: Plan, device: torch.device) -> None:
    lesson = Lesson(net, len(rows.choices), plan.guess_weight).to(device)
    optimizer, progress = optimiser(lesson, plan), Progress(plan.steps)
    half = device.type == "cuda" or cores.have_bf16()
    lesson.train()
    for step, batch in enumerate(rows.batches()):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, plan)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss: Tensor = lesson(batch.on(device))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(lesson.parameters(), 1.0)
        optimizer.step()
        progress.tell(step + 1, loss.item(), batch.tokens.numel())
    lesson.eval()


class Progress:
    def __init__(self, steps: int, every: int = 50) -> None:
        self.steps, self.every, self.start = steps, every, time.monotonic()
        self.tokens, self.loss = 0, 0.0

    def tell(self, step: int, loss: float, tokens_: int) -> None:
        self.tokens += tokens_
        self.loss = loss if step == 1 else 0.95 * self.loss + 0.05 * loss
        if step % self.every == 0 or step == self.steps:
            spent = time.monotonic() - self.start
            left = spent / step * (self.steps - step)
            line = f"step {step}/{self.steps}  loss {self.loss:.3f}  {self.tokens / spent:.0f} tokens/s"
            print(f"{line}  {left / 60:.1f} min left", flush=True)


def train(corpus: Corpus, plan: Plan, target: Path) -> None:
    """The whole way from corpus to file."""
    shape = Shape()
    torch.manual_seed(plan.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    written = [question for fact in corpus.facts for question in fact.phrasings]
    tokenizer = tokens.train([*corpus.answers(), *written, *corpus.refuse], shape.vocab)
    net = Net(shape).to(device)
    name, size = corpus.card.name, parameters(net)
    print(f"{name}: {len(corpus.facts)} facts, {len(written)} questions, {size:,} parameters, {device}")
    fit(net, Rows(corpus, Chat(tokenizer), plan), plan, device)
    export(net, tokenizer, replace(corpus.card, topics=tags(corpus)), target)
    check_tokens(tokenizer, target, [*corpus.answers(), *written, *corpus.refuse])


def parameters(net: Net) -> int:
    return sum(p.numel() for p in net.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a specialist from its corpus.")
    parser.add_argument("name", help="a folder of models/")
    parser.add_argument("--steps", type=int, default=Plan().steps)
    parser.add_argument("--seed", type=int, default=Plan().seed)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="another file than the folder's own")
    parser.add_argument("--rehearse", action="store_true", help="leave out what thresholds are set on; needs --out")
    options = parser.parse_args()
    if options.rehearse and not options.out:
        parser.error("--rehearse makes weights that are not for use: say where with --out")
    torch.set_num_threads(options.threads)
    corpus = corpora.load(options.name, options.rehearse)
    target = options.out or score.path(options.name)
    train(corpus, Plan(steps=options.steps, seed=options.seed), target)
    print(score.report(corpus, target, score.score(corpus, target)))


if __name__ == "__main__":
    main()
