"""The judge is judged: on draws whose bias and variance are known."""

import pytest
import torch

from archgrad.laboratory.statistics import ENOUGH, LEVEL, Moments, debiased, effective, sidak

P, N = 12, 1000
EXACT = torch.linspace(-1, 2, P).double()
LENGTH = float(EXACT.norm())


def draws(seed, n=N, *, bias=None, deviation=1.0):
    x = torch.randn(n, P, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return EXACT + (0 if bias is None else bias) + deviation * x


def quality(x, scale=None, groups=1):
    moments = Moments(EXACT)
    for k, part in enumerate(x.chunk(groups)):
        moments.add(part, None if scale is None else scale.chunk(groups)[k], k)
    return moments.quality()


def test_numbers_are_what_they_say_they_are():
    x = draws(0)
    q = quality(x)
    assert q.draws == N
    assert q.variance == pytest.approx(float(x.var(0).sum()) / LENGTH**2)
    assert q.rmse == pytest.approx(float((x - EXACT).square().sum(-1).mean()) ** 0.5 / LENGTH)
    assert q.cosine == pytest.approx(float(torch.cosine_similarity(x, EXACT.expand_as(x), -1).mean()))
    z = (x.mean(0) - EXACT) / (x.std(0) / N**0.5)
    along = x @ EXACT / LENGTH
    z_along = (along.mean() - LENGTH) / (along.std() / N**0.5)
    assert q.max_z == pytest.approx(max(float(z.abs().max()), abs(float(z_along))))
    assert q.coordinates == P + 1
    assert q.left_out == 0


def test_sums_do_not_depend_on_how_the_draws_came():
    x = draws(1)
    whole, moments = quality(x), Moments(EXACT)
    for part in x.split(77):
        moments.add(part)
    assert moments.quality().variance == pytest.approx(whole.variance)
    assert moments.quality().max_z == pytest.approx(whole.max_z)


def test_an_unbiased_estimator_passes_and_a_wrong_factor_is_seen_with_the_stated_power():
    """Deviation .3 and 1,000 draws: a bias of ``detectable`` along g is seen in 95% of the studies."""
    alarms = sum(quality(draws(seed, deviation=0.3)).biased for seed in range(300))
    assert alarms <= 2  # 300 studies at 1e-3; more than 2 has probability 0.004
    detectable = quality(draws(0, deviation=0.3)).detectable
    assert 0.005 < detectable < 0.05
    seen = sum(quality(draws(seed, bias=detectable * EXACT, deviation=0.3)).biased for seed in range(300))
    assert 0.90 * 300 <= seen <= 0.99 * 300


def test_a_factor_of_n_over_n_minus_1_is_flagged_by_the_projection_alone():
    """2% of every coordinate: each is far below its own threshold, together they are not."""
    x = draws(5, bias=0.02 * EXACT, deviation=0.35)
    z = (x.mean(0) - EXACT) / (x.std(0) / N**0.5)
    q = quality(x)
    assert float(z.abs().max()) < q.threshold < q.max_z
    assert q.verdict == "biased"


@pytest.mark.parametrize("groups", [1, 20])
@pytest.mark.parametrize("length", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("direction", [0, 7])
def test_intervals_cover_the_true_bias(groups, length, direction):
    """Nominal 95%; between 89% and 100% here, with one coordinate five times as noisy as the others."""
    deviation = torch.ones(P).double()
    deviation[0] = 5
    bias = torch.zeros(P).double()
    bias[direction] = length
    found = [quality(draws(s, 400, bias=bias, deviation=deviation), groups=groups) for s in range(100)]
    covered = sum(q.interval[0] <= length / LENGTH <= q.interval[1] for q in found)
    assert covered >= 86  # of 100; at 89% fewer has probability 0.13 a case, so the seeds are fixed
    assert all(q.interval[0] <= q.bias <= q.interval[1] or q.bias == 0 for q in found)


def test_the_bias_is_freed_of_what_chance_adds():
    found = [quality(draws(s, 400, bias=0.1 * EXACT)).bias for s in range(60)]
    assert sum(found) / 60 == pytest.approx(0.1, abs=0.005)  # its standard error is .002
    raw = [float((draws(s, 400, bias=0.1 * EXACT).mean(0) - EXACT).norm()) / LENGTH for s in range(60)]
    assert sum(raw) / 60 > 0.105


def test_a_scale_of_its_own_is_divided_out_without_hiding_a_bias():
    """x = s g + noise is unbiased with scale s; where s goes with the noise it is not."""
    generator = torch.Generator().manual_seed(3)
    s = 2 + torch.rand(4000, generator=generator, dtype=torch.float64)
    noise = draws(3, 4000) - EXACT
    fair = quality(s.unsqueeze(-1) * (EXACT + noise), s)
    assert not fair.biased
    assert fair.detectable < 0.1
    tied = quality(2.5 * EXACT + 0.2 * (s - 2.5).unsqueeze(-1) * EXACT + noise, s)
    assert not tied.biased  # the mean is still E[s] g
    shifted = quality(s.unsqueeze(-1) * (0.8 * EXACT + noise), s)
    assert shifted.biased
    assert shifted.bias == pytest.approx(0.2, abs=0.03)


def test_groups_that_differ_widen_the_interval():
    """Every past shifts the estimate: draws of one past are not independent of each other."""
    shift = torch.randn(20, P, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = draws(0, 2000) + 0.5 * shift.repeat_interleave(100, 0)
    assert quality(x, groups=20).interval[0] == 0
    assert quality(x).interval[0] > 0


def test_coordinates_with_few_draws_are_left_out_and_counted():
    x = draws(2)
    x[:, 3] = 0
    x[:5, 3] = 2.0  # five draws hold all of this coordinate
    q = quality(x)
    assert q.left_out == 1
    assert q.coordinates == P
    assert effective(torch.tensor([4.0, 0.0]), torch.tensor([4.0, 0.0])).tolist() == [4, 0]


def test_padding_is_no_coordinate():
    exact = EXACT.clone()
    exact[-1] = 0
    x = draws(2)
    x[:, -1] = 0
    moments = Moments(exact)
    moments.add(x)
    assert moments.quality().left_out == 0
    assert moments.quality().coordinates == P


def test_estimates_without_noise_are_judged_as_well():
    right = quality(EXACT.expand(50, P))
    assert not right.biased
    assert right.verdict.startswith("unbiased as far as 50 draws can tell (would have seen ")
    assert right.detectable < 1e-5
    assert right.interval[1] < 1e-5
    wrong = quality((0.5 * EXACT).expand(50, P))
    assert wrong.verdict == "biased"
    assert wrong.bias == pytest.approx(0.5)
    assert quality(torch.zeros(ENOUGH, P).double()).verdict == "biased"
    few = quality(torch.zeros(ENOUGH - 1, P).double())
    assert (
        few.verdict
        == f"unbiased as far as {ENOUGH - 1} draws can tell (would have seen nothing: too few of them count)"
    )
    assert few.max_z is None


def test_few_draws_are_judged_more_carefully():
    """By Student's t: 300 studies of 150 draws, false alarms at 1e-3 each, and a gross error is still seen."""
    assert sum(quality(draws(s, 150)).biased for s in range(300)) <= 2
    assert quality(draws(0, 150, bias=-0.5 * EXACT, deviation=0.5)).biased
    assert quality(draws(0, 150)).max_z < quality(draws(0, 150)).threshold


def test_the_family_wise_threshold():
    assert sidak(1) == pytest.approx(3.2905, abs=1e-4)
    assert sidak(30) == pytest.approx(4.149, abs=1e-3)
    assert LEVEL == 1e-3


def test_a_lucky_mean_is_no_knowledge():
    """Means that came much nearer to g than their own noise: the interval still admits a bias of that noise's size."""
    mean, covariance = torch.full((9,), 1e-6).double(), torch.eye(9).double()
    bias, interval = debiased(mean, covariance, 1000)
    assert bias == 0
    assert interval[0] == 0
    assert interval[1] > 1  # the noise's length is 3
