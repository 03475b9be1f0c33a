from __future__ import annotations

import pytest

from autograd_tui.core.errors import Refused
from autograd_tui.core.run_config import read_size, size_in_words


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1GiB", 1 << 30),
        ("500MB", 500_000_000),
        ("64MiB", 64 << 20),
        ("64 mib", 64 << 20),
        ("1.5gb", 1_500_000_000),
        ("0", 0),
        ("12345", 12345),
    ],
)
def test_a_size_is_read_with_its_unit(text: str, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "1TB", "-1", "1e9", "nan", "1 000", "GiB", "9" * 99])
def test_what_is_no_size_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(Refused, match="--memory must be a size such as 1GiB, 500MB or a number of bytes"):
        read_size(text)


@pytest.mark.parametrize(
    ("size", "words"), [(1 << 30, "1 GiB"), (64 << 20, "64 MiB"), (46_834_112, "46.8 MB"), (1500, "1.5 kB"), (0, "0 B")]
)
def test_a_size_is_written_briefly(size: int, words: str) -> None:
    assert size_in_words(size) == words
