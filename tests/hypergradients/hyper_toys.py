"""Problems whose hypergradient is known: a quadratic in closed form, and a small smooth network."""

import torch
from torch.nn import functional as F


class Quadratic:
    """g = z'Az/2 - z'Bh, f = |z - c|^2/2 + s'h; z of two tensors, h of any shape."""

    def __init__(self, h_shape=(2, 3), seed=0, lowest=0.5):
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        basis, _ = torch.linalg.qr(draw(5, 5))
        self.eigenvalues = torch.linspace(lowest, 3, 5, dtype=torch.float64)
        self.A = basis @ self.eigenvalues.diag() @ basis.T
        self.h = draw(*h_shape)
        self.B, self.c, self.s = draw(5, self.h.numel()), draw(5), draw(self.h.numel())
        self.z = {"a": draw(2), "b": draw(3, 1)}

    def minimum(self):
        return self.split(torch.linalg.solve(self.A, self.B @ self.h.flatten()))

    @staticmethod
    def split(x):
        return {"a": x[:2], "b": x[2:, None]}

    @staticmethod
    def flat(z):
        return torch.cat([z["a"], z["b"].flatten()])

    def g(self, z, h, k):
        x = self.flat(z)
        return x @ self.A @ x / 2 - x @ (self.B @ h.flatten())

    def f(self, z, h):
        return (self.flat(z) - self.c).square().sum() / 2 + self.s @ h.flatten()

    def unrolled(self, steps, rate):
        """z_T and df/dh in closed form, from z: z_T = M^T z + sum_{i<T} M^i rate B h, M = 1 - rate A."""
        M = torch.eye(5, dtype=torch.float64) - rate * self.A
        total = sum(torch.linalg.matrix_power(M, i) for i in range(steps)) * rate
        z = torch.linalg.matrix_power(M, steps) @ self.flat(self.z) + total @ self.B @ self.h.flatten()
        return z, (self.s + self.B.T @ total.T @ (z - self.c)).view_as(self.h)

    def implicit(self, damping=0.0):
        """df/dh at the minimum in closed form."""
        z = self.flat(self.minimum())
        A = self.A + damping * torch.eye(5, dtype=torch.float64)
        return (self.s + self.B.T @ torch.linalg.solve(A, z - self.c)).view_as(self.h)


class Network:
    """A mixed layer 4-5-3: g on batches of its own, f on another; h two rows of three options' weights."""

    def __init__(self, act=torch.tanh, dtype=torch.float64, seed=0):
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

        self.act = act
        self.batches = [(draw(20, 4), torch.randint(3, (20,), generator=generator)) for _ in range(4)]
        self.valid = draw(20, 4), torch.randint(3, (20,), generator=generator)
        self.z = {"first": draw(3, 4, 5) / 2, "second": draw(3, 5, 3) / 2, "bias": draw(3) / 2}
        self.h = draw(2, 3).softmax(-1)

    def loss(self, z, h, x, y):
        x = self.act(torch.einsum("k,bi,kio->bo", h[0], x, z["first"]))
        return F.cross_entropy(torch.einsum("k,bi,kio->bo", h[1], x, z["second"]) + z["bias"], y)

    def g(self, z, h, k):
        return self.loss(z, h, *self.batches[k])

    def f(self, z, h):
        return self.loss(z, h, *self.valid)

    def update(self, rate=0.3, momentum=0.0, decay=0.0, seed=1):
        """SGD with momentum already on its way, Nesterov's form, and decay; a step is a function of (z, grad, k)."""
        generator = torch.Generator().manual_seed(seed)
        speed = {n: torch.randn(v.shape, generator=generator).to(v) / 10 for n, v in self.z.items()}

        def step(z, grad, k):
            grad = {n: grad[n] + decay * z[n] for n in z}
            now = {n: momentum * speed[n] + grad[n] for n in z}
            return {n: z[n] - rate * (grad[n] + momentum * now[n]) for n in z}

        return step


def sgd(rate):
    return lambda z, grad, k: {n: z[n] - rate * grad[n] for n in z}


def hypergradient(method, toy, update):
    """df/dh by the method at the toy's z and h, and z'."""
    h = toy.h.clone().requires_grad_()
    z = method(toy.g, toy.z, h, update)
    toy.f(z, h).backward()
    return h.grad, z
