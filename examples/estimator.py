"""Your own estimator of the gradient, checked against enumeration, in a search: an additive control variate."""

import argparse
from functools import partial

import torch

import archgrad
from archgrad.testing import check_unbiased, plain_space


class Additive:
    """mean_i (f_i - c_i(h_i)) dlog p(h_i) + d/dalpha E[c_i(h)]: unbiased, as c_i never saw h_i.

    c_i: ridge regression of f on h, fitted to the half of the batch without i. A sum over decisions, so E[c_i] under
    a factorised policy is its value at the probabilities and costs no evaluation. Spaces without nested decisions.
    """

    differentiates, epochs = 0, 1  # needs values of f only; one step a batch
    independent, learns = True, False  # c has a closed form for independent decisions; nothing is kept for later

    def __init__(self, samples: int = 10) -> None:
        self.samples = samples

    def propose(self, policy, generator):
        return archgrad.Batch(policy.sample(self.samples, generator))

    def gradient(self, policy, batch, values):
        objective = torch.zeros(())
        for half in (0, 1):
            mine, others = slice(half, None, 2), slice(1 - half, None, 2)
            h, f = batch.h[mine], values[mine]
            mean, table = self.fit(batch.h[others], values[others])
            residual = f - mean - (table * h).sum((-2, -1))
            expected = (table * policy.marginals()).sum() * len(h)
            objective = objective + (residual * policy.log_prob(h)).sum() + expected
        return archgrad.Estimate(torch.autograd.grad(objective / len(values), list(policy.parameters())))

    def fit(self, h, f):
        """Mean of f and a table [D, K] of what each choice adds to it."""
        x = h.flatten(1)
        weights = torch.linalg.solve(x.T @ x + torch.eye(x.shape[1]).to(x), x.T @ (f - f.mean()))
        return f.mean(), weights.reshape(h.shape[1:])

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        del state  # it remembers nothing between batches


def recipe(space, seed, samples=10):
    policy = archgrad.Factorised(space)
    return archgrad.Recipe("additive", policy, Additive(samples), torch.optim.Adam(policy.parameters(), 0.2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--epochs", type=float, default=10)
    options = parser.parse_args()
    policy = archgrad.Factorised(plain_space(2, 2)).double()
    check_unbiased(partial(Additive, 4), policy, lambda h: 1 + (h[..., 0, 0] + 2 * h[..., 1, 1]) ** 2)
    print("Unbiased: the mean over every batch of four there is equals the exact gradient.")
    settings = {"trials": options.trials, "epochs": options.epochs, "workers": 0, "out": "runs/additive"}
    result = archgrad.search("digits", "mlp", recipe, **settings)
    print("\n".join(result.summary["verdict"]))
