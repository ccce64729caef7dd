"""REBAR, RELAX and LAX are unbiased for every control variate: integrals over their noise, no random numbers."""

import math

import pytest
import torch

from archgrad import Autoregressive, Decision, Decisions, Factorised, ScoreFunction, UsageError
from archgrad.estimators.lax import Lax
from archgrad.estimators.rebar import Rebar
from archgrad.estimators.relax import Relax
from archgrad.pairing import valued
from archgrad.policies.replicated import replicated
from archgrad.testing import Replay, exact_gradient, plain_space, relative_error
from tests.estimators.quadrature import grid, integrate, whole_grid
from tests.estimators.test_score_function import curved
from tests.policies.test_policies import scrambled

NESTED = Decisions([Decision("kind", ("a", "b")), Decision("depth", ("a", "b"), when=((0, 1),))])
POLICIES = {
    "factorised": lambda: scrambled(Factorised(plain_space(2, 2)).double()),
    "nested": lambda: scrambled(Factorised(NESTED).double()),
    "autoregressive": lambda: scrambled(Autoregressive(plain_space(2, 2), hidden=3).double(), scale=1.0),
    "autoregressive nested": lambda: scrambled(Autoregressive(NESTED, hidden=3).double(), scale=1.0),
}
ESTIMATORS = {
    "rebar": lambda n=1, **more: Rebar(n, temperature=0.7, eta=0.8, **more),
    "relax": lambda n=1, **more: Relax(n, temperature=0.7, **more),
    "relax through f": lambda n=1, **more: Relax(n, temperature=0.7, through_f=True, **more),
}


def with_any(estimator, policy):
    """The estimator with a control variate that nobody trained: unbiasedness must not hang on a good one."""
    estimator.propose(policy, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, p in estimator.learner.parameters.items():
            if name not in ("log_t", "eta"):
                p += 0.5 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    estimator.learns = False
    return estimator


def moments(estimator, policy, f, noise, weights):
    return integrate(
        policy,
        weights,
        lambda many: estimator.proposal(many, *noise),
        lambda many, batch: estimator.gradient(many, batch, valued(estimator, batch, f)).gradient,
    )


@pytest.mark.parametrize("make_policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)
def test_is_unbiased(make, make_policy):
    """Ten nodes a uniform leave 2e-5; the wrong forms below are 1e-2 and more away."""
    policy = make_policy()
    estimator = with_any(make(baseline="none"), policy)
    mean, _ = moments(estimator, policy, curved, *grid(policy, 10))
    assert relative_error(mean, exact_gradient(policy, curved)) < 5e-5


@pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)
def test_is_unbiased_with_a_leave_one_out_baseline(make):
    policy = Factorised(plain_space(2)).double()
    policy.alpha.data[0, 1] = 0.8
    estimator = with_any(make(2), policy)
    mean, _ = moments(estimator, policy, curved, *grid(policy, 9, samples=2))
    assert relative_error(mean, exact_gradient(policy, curved)) < 1e-4


@pytest.mark.parametrize("make", [ESTIMATORS["rebar"], ESTIMATORS["relax"]])
def test_one_joint_control_variate_is_biased_where_decisions_depend_on_each_other(make):
    """Why c is asked once a decision there: a relaxed choice that flips the prefix makes c jump."""
    policy = POLICIES["autoregressive"]()
    policy.independent = True  # a lie: the estimator now takes the form for independent decisions
    estimator = with_any(make(baseline="none"), policy)
    mean, _ = moments(estimator, policy, curved, *grid(policy, 10))
    assert relative_error(mean, exact_gradient(policy, curved)) > 0.1


@pytest.mark.parametrize("name", ["factorised", "autoregressive", "nested"])
def test_lax_is_unbiased(name):
    """The density's score has a logarithmic tail: 14 nodes in each of four uniforms leave 5e-4."""
    policy = POLICIES[name]()
    estimator = with_any(Lax(1, temperature=0.7, baseline="none"), policy)
    u, weights = whole_grid(policy, 14)
    mean, _ = moments(estimator, policy, curved, [u], weights)
    assert relative_error(mean, exact_gradient(policy, curved)) < 1.5e-3


def bernoulli(phi):
    policy = Factorised(plain_space(2)).double()
    policy.alpha.data[0, 1] = phi
    return policy


@pytest.mark.parametrize(
    ("t", "phi", "gradient", "variance"), [(0.499, 0.0, 5e-4, 2.229e-2), (0.45, 1.0, 1.966119e-2, 1.7406e-2)]
)
def test_variance_of_rebar_on_the_toy(t, phi, gradient, variance):
    """f(b) = (b - t)^2, one (u, v), temperature .5, eta 1; in the second case worse than REINFORCE's 1.034605e-2."""
    policy = bernoulli(phi)
    estimator = Rebar(1, temperature=0.5, eta=1.0, baseline="none", learn="none")
    mean, second = moments(estimator, policy, lambda h: (h[..., 0, 1] - t) ** 2, *grid(policy, 24))
    mean, second = float(mean[0][0, 1]), float(second[0][0, 1])
    assert mean == pytest.approx(gradient, rel=1e-5)
    assert second - mean**2 == pytest.approx(variance, rel=3e-4)


def test_relax_learns_what_rebar_can_not():
    """t = .499 at phi = 0, one sample a step, 1,000 steps each: RELAX <= 1e-4 and below REBAR, exact variances."""
    t = 0.499

    def f(h):
        return (h[..., 0, 1] - t) ** 2

    policy = bernoulli(0.0)
    noise, weights = grid(policy, 24)
    variance = {}
    for name, estimator in {"rebar": Rebar(1, baseline="none"), "relax": Relax(1, baseline="none")}.items():
        generator = torch.Generator().manual_seed(0)
        for _ in range(1000):
            batch = estimator.propose(policy, generator)
            estimator.gradient(policy, batch, valued(estimator, batch, f))
        estimator.learns = False
        mean, second = moments(estimator, policy, f, noise, weights)
        assert float(mean[0][0, 1]) == pytest.approx(5e-4, abs=1e-7)
        variance[name] = float(second[0][0, 1] - mean[0][0, 1] ** 2)
    assert variance["relax"] <= 1e-4
    assert variance["relax"] < variance["rebar"] < 2.229e-2


@pytest.mark.parametrize("name", POLICIES)
def test_eta_0_is_reinforce(name):
    """The same samples, the same estimate: with either baseline."""
    policy = POLICIES[name]()
    for baseline in ("none", "leave-one-out"):
        rebar = Rebar(6, eta=0.0, baseline=baseline, learn="none")
        batch = rebar.propose(policy, torch.Generator().manual_seed(0))
        got = rebar.gradient(policy, batch, valued(rebar, batch, curved)).gradient
        each = len(batch) // 6
        h = batch.h.detach()[::each]
        reinforce = ScoreFunction(6, baseline)
        want = reinforce.gradient(policy, reinforce.propose(Replay(policy, h), torch.Generator()), curved(h)).gradient
        assert relative_error(got, want) < 1e-12


def test_a_constant_of_f_does_not_matter_to_a_leave_one_out_baseline():
    policy = POLICIES["factorised"]()
    got = []
    for shift in (0.0, 1000.0):
        estimator = Relax(6, learn="none")
        batch = estimator.propose(policy, torch.Generator().manual_seed(0))
        got.append(estimator.gradient(policy, batch, curved(batch.h) + shift).gradient)
    assert relative_error(got[0], got[1]) < 1e-9


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("make", [*ESTIMATORS.values(), lambda n=1, **more: Lax(n, **more)], ids=[*ESTIMATORS, "lax"])
def test_three_runs_at_once_are_three_single_runs_also_while_they_learn(make, name):
    """Four updates of the control variate, same noise; the last estimate shows what the first ones taught."""
    many = replicated(POLICIES[name](), 3)
    with torch.no_grad():
        for p in many.parameters():
            p[1] += 0.3
    space = many.space
    noise = torch.rand(4, 2, 3, 4, space.D, space.K, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def repeated(policy, noise):
        estimator = make(4)
        for u, v in noise:
            kinds = (u,) if isinstance(estimator, Lax) else (u, v)
            batch = estimator.proposal(policy, *kinds)
            found = estimator.gradient(policy, batch, valued(estimator, batch, curved)).gradient
        return found

    together = repeated(many, noise)
    for r in range(3):
        one = POLICIES[name]()
        with torch.no_grad():
            for p, q in zip(one.parameters(), many.parameters(), strict=True):
                p.copy_(q[r])
        alone = repeated(one, noise[:, :, r])
        for a, b in zip(alone, together, strict=True):
            assert torch.allclose(a, b[r], atol=1e-10)


@pytest.mark.parametrize("make", [*ESTIMATORS.values(), lambda n=1, **more: Lax(n, **more)], ids=[*ESTIMATORS, "lax"])
def test_learning_goes_down_the_variance(make):
    """The step's direction is d(sum g^2)/d(parameter) with f's points moving along: against finite differences."""
    policy = POLICIES["factorised"]()
    estimator = with_any(make(3), policy)
    noise = torch.rand(2, 3, 2, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    kinds = noise[:1] if isinstance(estimator, Lax) else noise

    def loss():
        batch = estimator.proposal(policy, *kinds)
        found = estimator.gradient(policy, batch, valued(estimator, batch, curved)).gradient
        return float(sum(g.square().sum() for g in found))

    state = estimator.state_dict()
    estimator.learns = True
    estimator.learner.optimizer.step = lambda: None  # the gradients are what is looked at
    loss()
    slopes = {n: None if p.grad is None else p.grad.clone() for n, p in estimator.learner.parameters.items()}
    estimator.learns = False
    estimator.load_state_dict(state)
    seen = 0
    for name, slope in slopes.items():
        if slope is None:
            continue
        p = estimator.learner[name]
        i = int(slope.abs().argmax())
        found = []
        for step in (1e-5, -2e-5, 1e-5):
            p.data.view(-1)[i] += step
            found.append(loss())
        want = (found[0] - found[1]) / 2e-5
        assert float(slope.reshape(-1)[i]) == pytest.approx(want, rel=1e-5, abs=1e-7), name
        seen += abs(want) > 1e-3
    assert seen >= min(2, len(slopes))


def test_state_survives():
    """A restored estimator gives the same next estimates, learning on."""
    policy = POLICIES["factorised"]()
    for make in (*ESTIMATORS.values(), lambda n: Lax(n)):
        first, second = make(4), make(4)

        def step(estimator, t):
            batch = estimator.propose(policy, torch.Generator().manual_seed(t))
            return estimator.gradient(policy, batch, valued(estimator, batch, curved)).gradient[0]

        step(first, 0)
        second.load_state_dict(first.state_dict())
        for t in (1, 2):
            assert torch.equal(step(first, t), step(second, t))


def test_learning_what_is_asked():
    policy = POLICIES["factorised"]()
    for make, moved in (
        (lambda: Rebar(6, learn="both"), {"log_t", "eta"}),
        (lambda: Rebar(6, learn="scale"), {"eta"}),
        (lambda: Rebar(6, learn="none"), set()),
        (lambda: Relax(6, learn="scale"), {"w3", "b3"}),
        (lambda: Relax(6, learn="scale", through_f=True), {"eta", "w3", "b3"}),
        (lambda: Relax(6, learn="none"), set()),
    ):
        estimator = make()
        batch = estimator.propose(policy, torch.Generator().manual_seed(0))
        before = {n: p.detach().clone() for n, p in estimator.learner.parameters.items()}
        estimator.gradient(policy, batch, valued(estimator, batch, curved))
        changed = {n for n, p in estimator.learner.parameters.items() if not torch.equal(before[n], p.detach())}
        # phi's last layer starts at 0, so the first step moves it alone
        assert changed - {"b3"} == moved - {"b3"}


@pytest.mark.parametrize("make", [Rebar, Relax, Lax])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"temperature": 0.0}, "temperature should be positive, got 0.0"),
        ({"temperature": math.nan}, "temperature should be positive"),
        ({"samples": 1}, "samples should be at least 2 with baseline='leave-one-out', got 1"),
        ({"samples": 0, "baseline": "none"}, "samples should be at least 1"),
        ({"baseline": "mean"}, "baseline should be none or leave-one-out, got 'mean'"),
        ({"lr": -1.0}, "lr should be positive, got -1.0"),
    ],
)
def test_bad_arguments(make, arguments, said):
    with pytest.raises(UsageError, match=said):
        make(**arguments)


def test_bad_control_variates():
    for make in (Relax, Lax):
        with pytest.raises(UsageError, match=r"hidden should be at least 1, .* got 0"):
            make(hidden=0)
    for make in (Rebar, Relax):
        with pytest.raises(UsageError, match="eta should be a finite number, got nan"):
            make(eta=math.nan)


def test_unknown_learning():
    for make in (Rebar, Relax):
        with pytest.raises(UsageError, match="learn should be both, scale or none, got 'all'"):
            make(learn="all")
