"""How fast searches are that step together, beside the plain loop that anyone would write for one.

    python bench/policies.py [--table nasbench201.csv.gz] [--column cifar10_val_12] [--repeats 7] [--seconds 1] [--json]

Architectures a second of CPU time: sample, look f up, estimate the gradient, step Adam. One thread; the cases take
turns within this process, the plain loop before each, and a ratio is the median over repeats of neighbours.

- factorised, 6 decisions of 5: REINFORCE with a moving-average baseline, one sample an update. With ``--table`` f is
  a column of NAS-Bench-201, otherwise random numbers in a table of that size.
- lstm and transformer, 20 decisions of 7, hidden 32: 20 samples an update, leave-one-out baseline; f is a sum over
  decisions.

The plain loop draws with ``torch.distributions.Categorical``, as most code does; the *lean* one with log_softmax and
multinomial, which spares that class's checks.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from archgrad import Autoregressive, Factorised, ScoreFunction
from archgrad.benchmarks.nasbench201 import cell_space, read_table
from archgrad.policies import Transformer
from archgrad.searchers.recipe import descend
from archgrad.testing import plain_space

CELL, SEQUENCE, HIDDEN, SAMPLES = cell_space(), plain_space(*[7] * 20), 32, 20
Update = Callable[[], int]
"""One step of a search; how many architectures it evaluated."""


def draw(logits: Tensor, lean: bool) -> tuple[Tensor, Tensor]:
    """Choices ``[n]`` and their log-probabilities from logits ``[n, K]``."""
    if lean:
        log_p = logits.log_softmax(-1)
        choice = torch.multinomial(log_p.detach().exp(), 1)
        return choice.squeeze(-1), log_p.gather(-1, choice).squeeze(-1)
    distribution = torch.distributions.Categorical(logits=logits)
    choice = distribution.sample()
    return choice, distribution.log_prob(choice)


def plain_factorised(values: Tensor, lean: bool = False) -> Update:
    """REINFORCE on a table, one search, one sample an update."""
    alpha = torch.zeros(CELL.D, CELL.K, requires_grad=True)
    optimizer = torch.optim.Adam([alpha], 0.05)
    table = values.tolist()
    average: float | None = None

    def update() -> int:
        nonlocal average
        choices, log_prob = draw(alpha, lean)
        index = 0
        for choice in choices.tolist():
            index = index * CELL.K + choice
        value = table[index]
        loss = (value - (value if average is None else average)) * log_prob.sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        average = value if average is None else 0.9 * average + 0.1 * value
        return 1

    return update


class Controller(nn.Module):
    """An LSTM that decides one architecture, decision by decision."""

    def __init__(self, decisions: int, choices: int, hidden: int, lean: bool) -> None:
        super().__init__()
        self.lean = lean
        self.cell = nn.LSTMCell(hidden, hidden)
        self.start = nn.Parameter(torch.zeros(1, hidden))
        self.embeddings = nn.ModuleList([nn.Embedding(choices, hidden) for _ in range(decisions)])
        self.heads = nn.ModuleList([nn.Linear(hidden, choices) for _ in range(decisions)])

    def forward(self) -> tuple[list[int], Tensor]:
        """Choices and their log-probability."""
        x = self.start
        state = memory = torch.zeros_like(x)
        chosen: list[int] = []
        log_prob = torch.zeros(1)
        for embedding, head in zip(self.embeddings, self.heads, strict=True):
            state, memory = self.cell(x, (state, memory))
            choice, log_p = draw(head(state), self.lean)
            log_prob = log_prob + log_p
            chosen.append(int(choice))
            x = embedding(choice)
        return chosen, log_prob.squeeze(0)


def plain_lstm(values: Tensor, lean: bool = False) -> Update:
    """The controller of ENAS: one architecture after the other, one backward pass for ``SAMPLES`` of them."""
    controller = Controller(SEQUENCE.D, SEQUENCE.K, HIDDEN, lean)
    optimizer = torch.optim.Adam(controller.parameters(), 0.01)
    table = values.tolist()

    def update() -> int:
        sampled = [controller() for _ in range(SAMPLES)]
        value = torch.tensor([sum(row[k] for row, k in zip(table, chosen, strict=True)) for chosen, _ in sampled])
        advantage = (value - value.mean()) * SAMPLES / (SAMPLES - 1)
        loss = (advantage * torch.stack([log_prob for _, log_prob in sampled])).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return SAMPLES

    return update


def together(policy: Any, estimator: ScoreFunction, f: Callable[[Tensor], Tensor], lr: float) -> Update:
    """The same searches of archgrad's parts, however many runs the policy has."""
    optimizer = torch.optim.Adam(policy.parameters(), lr, fused=True)
    generator = torch.Generator().manual_seed(0)

    def update() -> int:
        batch = estimator.propose(policy, generator)
        descend(optimizer, policy, estimator.gradient(policy, batch, f(batch.h)))
        return batch.h.shape[:-2].numel()

    return update


def looked_up(values: Tensor) -> Callable[[Tensor], Tensor]:
    """f from a table ``[K ** D]``, the architectures being in the order of ``enumerate``."""
    place = CELL.K ** torch.arange(CELL.D - 1, -1, -1).unsqueeze(-1) * torch.arange(CELL.K)
    weight = place.float().flatten()  # indices below 2 ** 24 are exact in float32

    def f(h: Tensor) -> Tensor:
        return values[(h.flatten(-2) @ weight).long()]

    return f


def rate(update: Update, seconds: float) -> float:
    """Architectures a second of this process's CPU time."""
    count, start = 0, time.process_time()
    while (spent := time.process_time() - start) < seconds:
        count += update()
    return count / spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", help="a CSV table of NAS-Bench-201, plain or gzip")
    parser.add_argument("--column", default="cifar10_val_12")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU time of a case in a repeat")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if options.table:
        values = -read_table(options.table, options.column)
        values = ((values - values.mean()) / values.std(correction=0)).float()
    else:
        values = torch.randn(CELL.K**CELL.D)
    rows = torch.rand(SEQUENCE.D, SEQUENCE.K)

    def additive(h: Tensor) -> Tensor:
        return (rows * h).sum((-2, -1))

    def searches(make: Any, space: Any, runs: int) -> Update:
        policy = make(space, runs=(runs,) if runs > 1 else ())
        if make is Factorised:
            return together(policy, ScoreFunction(1, "moving-average"), looked_up(values), 0.05)
        return together(policy, ScoreFunction(SAMPLES), additive, 0.01)

    # a search that has decided underflows in exp, which is slow: every repeat starts anew, as a search would
    groups: dict[str, tuple[Callable[[], Update], dict[int, Callable[[], Update]]]] = {
        "factorised 6x5": (
            functools.partial(plain_factorised, values),
            {r: functools.partial(searches, Factorised, CELL, r) for r in (1, 10, 100, 500)},
        ),
        "factorised, lean": (
            functools.partial(plain_factorised, values, lean=True),
            {500: functools.partial(searches, Factorised, CELL, 500)},
        ),
        "lstm 20x7": (
            functools.partial(plain_lstm, rows),
            {r: functools.partial(searches, Autoregressive, SEQUENCE, r) for r in (1, 10, 100)},
        ),
        "lstm, lean": (
            functools.partial(plain_lstm, rows, lean=True),
            {r: functools.partial(searches, Autoregressive, SEQUENCE, r) for r in (1, 100)},
        ),
        "transformer 20x7": (
            functools.partial(plain_lstm, rows),
            {r: functools.partial(searches, Transformer, SEQUENCE, r) for r in (1, 10)},
        ),
    }
    measured: dict[str, dict[int, list[tuple[float, float]]]] = {
        name: {runs: [] for runs in cases} for name, (_, cases) in groups.items()
    }
    for repeat in range(options.repeats + 1):
        for name, (plain, cases) in groups.items():
            for runs, make in cases.items():
                pair = rate(plain(), options.seconds), rate(make(), options.seconds)
                if repeat:  # the first warms up
                    measured[name][runs].append(pair)
    table = [
        {
            "policy": name,
            "runs": runs,
            "plain_per_second": statistics.median(p for p, _ in pairs),
            "per_second": statistics.median(v for _, v in pairs),
            "ratio": statistics.median(v / p for p, v in pairs),
            "ratio_range": [min(v / p for p, v in pairs), max(v / p for p, v in pairs)],
        }
        for name, cases in measured.items()
        for runs, pairs in cases.items()
    ]
    if options.json:
        print(json.dumps({"repeats": options.repeats, "seconds": options.seconds, "rates": table}))
        return
    print(f"{'':18}{'runs':>5}{'plain loop /s':>15}{'archgrad /s':>13}{'ratio':>8}{'range':>16}")
    for row in table:
        low, high = row["ratio_range"]  # type: ignore[misc]
        print(
            f"{row['policy']:18}{row['runs']:5}{row['plain_per_second']:15,.0f}{row['per_second']:13,.0f}"
            f"{row['ratio']:8.1f}{f'{low:.1f} to {high:.1f}':>16}"
        )


if __name__ == "__main__":
    main()
