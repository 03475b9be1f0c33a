"""PyTorch's libraries, loaded on a thread of their own while the screen is drawn.

`import torch` loads them under the interpreter's lock, for which all that draws would wait. While they are loaded,
nobody else can load a library: an import that needs one would hold that lock and wait for the system's loader.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Thread

# In the order in which `import torch` loads them; the first is there to make symbols known to all others.
GLOBAL, OTHERS = "libtorch_global_deps.so", ("libtorch_cpu.so", "libtorch.so")

# What PyTorch, or opening a session, imports too: what loads libraries, before PyTorch's; and the rest, meanwhile.
BEFORE = ("ctypes", "csv", "hashlib", "mmap", "cmath")
BESIDE = (
    "torchgen.model",
    "unittest.mock",
    "urllib.request",
    "importlib.metadata",
    "multiprocessing.connection",
    "autograd_tui.journal.writer",
)


class TorchLibraries:
    """Loads them once `start` is called; whoever imports PyTorch calls `wait` before. It never raises."""

    def __init__(self) -> None:
        self._thread = Thread(target=_load, name="libraries")  # no daemon: `main` leaves without waiting for its end

    def start(self) -> None:
        """Begin to load them, unless PyTorch is there already."""
        if sys.platform == "linux" and "torch" not in sys.modules:
            self._thread.start()

    def wait(self) -> None:
        """Return when they are loaded, if that has begun; in the meantime import what is needed behind them."""
        if self._thread.ident is not None:
            for module in BESIDE:
                if self._thread.is_alive():
                    _try_to_import(module)
            self._thread.join()


def _try_to_import(module: str) -> None:
    with suppress(Exception):  # whoever needs it says so
        import_module(module)


def _load() -> None:
    spec = find_spec("torch")
    folders = (spec and spec.submodule_search_locations) or ()
    library = next((path for folder in folders if (path := Path(folder) / "lib" / GLOBAL).exists()), None)
    if library is None:
        return
    for module in BEFORE:
        _try_to_import(module)
    import ctypes  # which releases the interpreter's lock for any function that it calls

    load = ctypes.CDLL(None).dlopen
    load.argtypes, load.restype = (ctypes.c_char_p, ctypes.c_int), ctypes.c_void_p
    loaded = load(os.fsencode(library), os.RTLD_NOW | os.RTLD_GLOBAL)
    for each in OTHERS:
        loaded = loaded and load(os.fsencode(library.with_name(each)), os.RTLD_NOW)
