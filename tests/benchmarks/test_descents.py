"""Steepest descent of many starts at once: against brute force and one step at a time."""

import torch

from archgrad.benchmarks.descents import descents
from archgrad.testing import plain_space


def model(D, K, seed):
    """Tables as those of a pairwise model: 0 unless the first decision comes before the second."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(D, K, generator=generator, dtype=torch.float64)
    pairs = torch.randn(D, K, D, K, generator=generator, dtype=torch.float64)
    return table, pairs * torch.ones(D, D, dtype=torch.float64).triu(1)[:, None, :, None]


def value(table, pairs, choices):
    h = torch.nn.functional.one_hot(choices, table.shape[1]).double()
    return torch.einsum("ndk,dk->n", h, table) + torch.einsum("ndk,dkel,nel->n", h, pairs, h)


def changes(choices, K):
    """Every architecture that one change makes of one, ``[D * K, D]``, itself among them."""
    near = choices.repeat(len(choices) * K, 1)
    near[torch.arange(len(near)), torch.arange(len(choices)).repeat_interleave(K)] = torch.arange(K).repeat(
        len(choices)
    )
    return near


def test_every_end_is_where_one_step_at_a_time_ends():
    table, pairs = model(6, 4, 0)
    ends = descents(table, pairs, 30, seed=7)
    begun = torch.randint(4, (30, 6), generator=torch.Generator().manual_seed(7))
    for at, end in zip(begun, ends, strict=True):
        while True:
            near = changes(at, 4)
            values = value(table, pairs, near)
            if float(values.min()) > float(value(table, pairs, at[None])) - 1e-9:
                break
            at = near[int(values.argmin())]
        assert at.tolist() == end.tolist()
    assert len({tuple(e) for e in ends.tolist()}) > 1, "with pairs as strong as these there are several minima"


def test_many_starts_find_the_optimum_of_a_space_that_can_be_enumerated():
    for seed in range(3):
        table, pairs = model(6, 4, seed)
        every = plain_space(*[4] * 6).enumerate().argmax(-1)
        best = value(table, pairs, every).min()
        assert torch.isclose(value(table, pairs, descents(table, pairs, 200)).min(), best, rtol=0, atol=1e-9)


def test_the_same_seed_ends_at_the_same_places():
    table, pairs = model(8, 5, 1)
    assert torch.equal(descents(table, pairs, 50, seed=3), descents(table, pairs, 50, seed=3))
    assert not torch.equal(descents(table, pairs, 50, seed=3), descents(table, pairs, 50, seed=4))
