"""Settings of every test: one thread, no deadlines (machines are shared), the same examples every time."""

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("archgrad", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("archgrad")
