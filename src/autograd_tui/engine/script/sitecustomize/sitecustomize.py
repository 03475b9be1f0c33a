"""Imported by each Python that a stepped script starts: has the agent enter when `import torch` has ended.

The folder of this file stands first in PYTHONPATH. The user's own sitecustomize, if there is one, is run as well.
"""

import importlib.util
import os
import sys
from importlib.machinery import PathFinder

HERE = os.path.dirname(os.path.abspath(__file__))


class AfterTorch:
    """Finds torch as Python would, and calls `enter` once it is imported."""

    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
        """Return torch's own spec, whose loader goes on with `enter`."""
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec("torch")
        if spec is None or spec.loader is None:
            return spec
        loader, run = spec.loader, spec.loader.exec_module

        def exec_module(module):  # type: ignore[no-untyped-def]
            loader.exec_module = run  # type: ignore[method-assign]  # a tool that hooks the import as well may have set it
            try:
                run(module)
                enter()
            except BaseException as error:
                if error.__traceback__ is not None:
                    error.__traceback__ = error.__traceback__.tb_next
                raise  # this adds no frame: the script's traceback is that of a plain import

        loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def enter() -> None:
    """Have the agent install its seams; where it cannot, the script runs as under plain Python."""
    try:
        from autograd_tui.engine.script.agent import enter_script

        enter_script()
    except Exception as error:
        report(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt as error:
        error.__traceback__ = None  # it shows what is imported here
        raise


def report(reason: str) -> None:
    """Leave a sentence for the screen, which nobody else can write to."""
    try:
        with open(os.path.join(os.environ["AUTOGRAD_TUI_SCRIPT"], "failed"), "w", encoding="utf-8") as file:
            file.write(reason)
    except OSError:
        pass


def run_own_sitecustomize() -> None:
    """Run the sitecustomize that Python would have found without this one."""
    sys.path[:] = [each for each in sys.path if os.path.abspath(each) != HERE]
    spec = PathFinder.find_spec("sitecustomize", sys.path)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


run_own_sitecustomize()
if os.environ.get("AUTOGRAD_TUI_SCRIPT") and hasattr(os, "fork"):
    sys.meta_path.insert(0, AfterTorch())
