"""What the tests of tasks/ share."""

import numpy as np
import pytest

from archgrad.errors import UsageError
from archgrad.tasks import load


@pytest.fixture
def refused():
    """Loading is refused in one line that has all of the words; returns the line."""

    def check(source, *words, **arguments):
        with pytest.raises(UsageError) as caught:
            load(source, **arguments)
        message = str(caught.value)
        assert "\n" not in message
        for word in words:
            assert str(word) in message, f"{word!r} is not in {message!r}"
        return message

    return check


@pytest.fixture
def blobs():
    """60 rows of 4 features in 3 classes, all rows distinct."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    return (rng.normal(size=(60, 4)) + y[:, None]).astype(np.float32), y
