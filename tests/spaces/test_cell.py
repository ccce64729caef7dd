"""The cell space of NAS-Bench-201: its texts, its order, and which cells are the same network."""

import csv
import gzip
import importlib
import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from archgrad import UsageError
from archgrad.spaces.nasbench201 import EDGES, OPERATIONS, NasBench201, cell_space

benchmark = importlib.import_module("archgrad.benchmarks.nasbench201")  # the function has the module's name
DATA = Path(__file__).parents[3] / "shared" / "data" / "nasbench201_cifar10.csv.gz"
SPACE = NasBench201()
cells = st.tuples(*[st.sampled_from(OPERATIONS)] * len(EDGES))


def cell(digits):
    return tuple(OPERATIONS[int(d)] for d in digits)


def behaviours():
    """A number an architecture, equal for cells that are the same network: what they compute, weights aside.

    Every operation has a weight of its own and is an odd function of its input, so nothing comes of nothing. A function
    of the output is added up over all 720 ways to hand out six weights: naming operations differently changes nothing.
    """
    digits = SPACE.enumerate().argmax(-1)
    generator = torch.Generator().manual_seed(0)
    slope = 0.5 + torch.rand(len(OPERATIONS), 6, generator=generator, dtype=torch.float64)
    total = torch.zeros(SPACE.size, dtype=torch.float64)
    for weights in itertools.permutations(range(6)):
        nodes = [torch.full((SPACE.size,), 0.7, dtype=torch.float64)]
        edge = 0
        for j in (1, 2, 3):
            node = torch.zeros(SPACE.size, dtype=torch.float64)
            for i in range(j):
                kind = digits[:, edge]
                made = torch.sin(slope[:, weights[edge]][kind] * nodes[i])
                node += torch.where(kind == 0, 0.0, torch.where(kind == 1, nodes[i], made))
                edge += 1
            nodes.append(node)
        total += torch.cos(nodes[3]) + nodes[3] ** 3
    return total


def test_classes_are_the_5425_networks_that_behave_differently():
    numbers = behaviours()
    _, behaviour = torch.unique((numbers * 1e6).round(), return_inverse=True)
    pairs = torch.unique(torch.stack([SPACE.classes, behaviour]), dim=1)
    assert SPACE.classes.unique().tolist() == list(range(5425))
    assert int(behaviour.max()) + 1 == 5425
    assert pairs.shape == (2, 5425)  # so the two partitions are one
    # rounding neither splits nor joins: numbers of different networks are far apart, of one they are equal
    apart = numbers.sort().values.diff()
    assert not bool(((apart > 1e-8) & (apart < 4e-6)).any())


def test_classes_and_keys_are_the_same():
    some = torch.randperm(SPACE.size, generator=torch.Generator().manual_seed(0))[:3000].tolist()
    architectures = SPACE.decode(SPACE.enumerate()[some])
    keys = [SPACE.key(a) for a in architectures]
    assert len(set(zip(keys, SPACE.classes[some].tolist(), strict=True))) == len(set(keys))
    assert len(set(keys)) == len(SPACE.classes[some].unique())


@pytest.mark.parametrize(
    ("digits", "key"),
    [
        ("000000", "0"),
        ("300000", "0"),  # a dead end
        ("000001", "0"),  # nothing comes in
        ("000100", "x"),
        ("110111", "3x"),  # 0>3, 0>1>3, 0>2>3
        ("111111", "4x"),  # and 0>1>2>3
        ("303300", "a=nor_conv_3x3(x); a"),  # 0>1>2 leads nowhere, 0>3 is alone
        ("310033", "a=nor_conv_3x3(x); b=nor_conv_3x3(x); c=nor_conv_3x3(a); b + c"),
        ("400020", "a=avg_pool_3x3(x); b=nor_conv_1x1(a); b"),
    ],
)
def test_keys_by_hand(digits, key):
    # edges 0>1, 0>2, 1>2, 0>3, 1>3, 2>3
    assert SPACE.key(cell(digits)) == key


def test_a_shared_convolution_is_not_two_convolutions():
    shared = cell("300011")  # a convolution at node 1, which node 3 reads; node 2 is nothing
    twice = cell("301011")  # the same one again, by way of node 2
    separate = cell("330011")  # node 2 has a convolution of its own
    assert SPACE.key(shared) == "a=nor_conv_3x3(x); a"
    assert SPACE.key(twice) == "a=nor_conv_3x3(x); 2a"
    assert SPACE.key(separate) == "a=nor_conv_3x3(x); b=nor_conv_3x3(x); a + b"


def test_the_order_of_nodes_and_terms_does_not_matter():
    assert SPACE.key(cell("320034")) == SPACE.key(cell("230043"))
    assert SPACE.key(cell("320034")) != SPACE.key(cell("230034"))


@given(cells)
def test_text_and_parse_are_inverse(architecture):
    assert SPACE.parse(SPACE.text(architecture)) == architecture


def test_the_published_text():
    text = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|none~2|"
    assert SPACE.parse(text) == cell("421210")
    assert SPACE.text(cell("421210")) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["3 nodes", "got 1"]),
        ("|none~0|+|none~0|none~1|", ["3 nodes", "got 2"]),
        ("|none~0|+|none~0|+|none~0|none~1|none~2|", ["node 2", "'|none~0|'"]),
        ("none~0+|none~0|none~1|+|none~0|none~1|none~2|", ["node 1", "'none~0'"]),
        ("conv|none~0|+|none~0|none~1|+|none~0|none~1|none~2|", ["node 1", "'conv|none~0|'"]),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|conv", ["node 3", "|conv'"]),
        ("|none~0|+|none~0|none~0|+|none~0|none~1|none~2|", ["edge 1>2", "'none~0'"]),
        ("|none~0|+|none~0|none~1|+|none~0|conv~1|none~2|", ["edge 1>3", "'conv~1'", "nor_conv_3x3"]),
        ("|none~0|+|none~0|none~1|+|none~0|none1|none~2|", ["edge 1>3", "'none1'"]),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|none~3|", ["node 3", "3 of operation"]),
    ],
)
def test_a_text_that_does_not_parse_is_told_where(text, words):
    with pytest.raises(UsageError) as refused:
        SPACE.parse(text)
    assert [w for w in words if w not in str(refused.value)] == []


def test_an_unknown_operation_has_neither_text_nor_key():
    for ask in (SPACE.text, SPACE.key):
        with pytest.raises(UsageError, match="'conv'"):
            ask(("conv", *OPERATIONS))


def test_the_official_numbers_are_a_permutation_that_begins_as_published():
    # the published code asserts what its first architecture is
    first = SPACE.parse(
        "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"
    )
    assert int(SPACE.official[SPACE.index(SPACE.encode([first]))]) == 0
    assert SPACE.official.sort().values.tolist() == list(range(SPACE.size))


def test_the_real_table_has_these_numbers_and_its_classes_join_some_of_these():
    if not DATA.exists():
        pytest.skip(f"needs the table {DATA.name} in the folder shared/data beside the repository")
    with gzip.open(DATA, "rt") as file:
        rows = list(csv.DictReader(file))
    place = torch.tensor([int(row["ops"], 5) for row in rows])
    assert SPACE.official[place].tolist() == [int(row["index"]) for row in rows]
    isomorphic = torch.tensor([int(row["iso_index"]) for row in rows])
    pairs = torch.unique(torch.stack([isomorphic, SPACE.classes[place]]), dim=1)
    # the published string splits networks (6,466 of its classes for 5,425) and mixes some as well
    assert len(isomorphic.unique()) == 6466
    assert int((torch.bincount(pairs[0]) > 1).sum()) == 644


def test_the_names_are_where_they_were():
    assert (benchmark.EDGES, benchmark.OPERATIONS, benchmark.cell_space) == (EDGES, OPERATIONS, cell_space)


def test_features_count_the_sequences_of_operations_from_input_to_output():
    """By hand: 0>3, 0>1>3, 0>2>3 and 0>1>2>3; skips vanish, none cuts."""
    cells = [
        ("nor_conv_1x1", "none", "none", "nor_conv_3x3", "skip_connect", "none"),
        ("skip_connect", "skip_connect", "skip_connect", "skip_connect", "skip_connect", "skip_connect"),
        ("nor_conv_1x1", "nor_conv_1x1", "avg_pool_3x3", "none", "none", "nor_conv_3x3"),
        ("none", "nor_conv_1x1", "nor_conv_1x1", "none", "nor_conv_1x1", "none"),
    ]
    sequences = [s for n in range(4) for s in itertools.product(OPERATIONS[2:], repeat=n)]
    got = [
        {sequences[i]: int(c) for i, c in enumerate(row) if c} for row in SPACE.features(SPACE.encode(cells)).tolist()
    ]
    conv1, conv3, pool = OPERATIONS[2:]
    assert got == [{(conv3,): 1, (conv1,): 1}, {(): 4}, {(conv1, conv3): 1, (conv1, pool, conv3): 1}, {}]


def test_equal_networks_have_equal_features():
    features, classes = SPACE.features(SPACE.enumerate()), SPACE.classes
    first = torch.zeros(5425, dtype=torch.long)
    first[classes] = torch.arange(len(classes))
    assert torch.equal(features, features[first[classes]])
    assert len(torch.unique(features, dim=0)) > 4000  # and tell most of 5,425 apart
