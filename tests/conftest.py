"""Settings of every test: one thread, no deadlines (machines are shared), the same examples every time."""

import contextlib
import signal

import pytest
import torch
from hypothesis import settings
from zygote import Zygote

torch.set_num_threads(1)
settings.register_profile("archgrad", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("archgrad")


@pytest.fixture(scope="session")
def zygote(tmp_path_factory):
    """Runs command lines in children that start in milliseconds."""
    with contextlib.closing(Zygote(tmp_path_factory.mktemp("printed"))) as made:
        yield made


# Started in the background, as some CI does it, a shell has its children ignore Ctrl-C; ours have to hear it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
