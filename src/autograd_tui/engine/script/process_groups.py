"""Has the ranks of a distributed script wait longer for one that is held, as `torch.distributed.breakpoint` does."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from functools import wraps
from typing import Any

import torch.distributed as distributed

HELD_TIMEOUT = timedelta(hours=24)  # that a collective waits for all ranks; PyTorch's own is 10 or 30 minutes


def extend_timeouts() -> None:
    """Have every process group that this process makes wait so long; called in each rank, before it makes one."""
    if not distributed.is_available():
        return
    # Older versions of PyTorch have it under the other name alone.
    set_timeout = getattr(distributed, "set_timeout", None) or distributed.distributed_c10d._set_pg_timeout
    for name in ("init_process_group", "new_group"):
        original = getattr(distributed, name)

        def make_group(*args: Any, _original: Any = original, **kwargs: Any) -> Any:
            group = _original(*args, **kwargs)
            with suppress(Exception):  # one of another backend, or of which this rank is no member
                set_timeout(HELD_TIMEOUT, group)
            return group

        setattr(distributed, name, wraps(original)(make_group))
