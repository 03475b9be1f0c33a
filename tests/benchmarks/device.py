"""What is promised of an accelerator, proven and measured on a real one, in under four minutes.

    python tests/benchmarks/device.py                            # on the machine with the card
    python tests/benchmarks/device.py --device cpu --quick       # a dry run anywhere

It needs torch, torchvision and NumPy alone. Each check is a line: PASS, FAIL, NOTE where a goal is missed, or SKIP. The
last lines are a table, the goals beside the figures. The exit code is the number of FAILs.

The checks run in a process of their own. Where one hangs or ends the process, the others go on in a new one.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from device_runs import Findings, Setting

HERE = Path(__file__).resolve()
SOURCE = HERE.parents[2] / "src"
CHECKS = (  # cheap and important ones first
    "machine",
    "devices",
    "equality",
    "waits_and_launches",
    "equality_deterministic",
    "rewinding",
    "free_and_watched",
    "recorded",
    "other_thread",
    "out_of_memory",
    "hung_phase",
    "stepped",
    "free",
    "recorded_times",
    "true_times",
    "memory",
    "checkpoints",
    "statistics",
    "gradient_check",
    "looks",
    "autocast",
    "batches",
    "state_of_another_device",
    "exported_script",
    "led_script",
    "second_device",
    "compiled",
    "two_ranks",
    "profile",
)
Result = dict[str, Any]  # of a check: its name, verdict, what it says, figures and seconds


def run_check(name: str, setting: Setting) -> Result:
    """Run one check; what it raises is a FAIL, with the end of the traceback."""
    from device_runs import Findings, Skipped

    findings, started = Findings(), perf_counter()
    skipped = ""
    try:
        find_check(name)(setting, findings)
        setting.synchronize()
    except Skipped as reason:
        skipped = str(reason)
    except Exception as error:
        lines = "".join(traceback.format_exception(error)).strip().splitlines()
        findings.broken.append(" | ".join(each.strip() for each in lines[-8:])[:900])
    verdict = "SKIP" if skipped else "FAIL" if findings.broken else "PASS"
    if verdict == "PASS" and not all(each.is_met for each in findings.figures):
        verdict = "NOTE"
    figures = [(each.name, each.value, each.goal_in_words, each.is_met) for each in findings.figures]
    words = [skipped] if skipped else [*findings.broken, *findings.sentences]
    return {"check": name, "verdict": verdict, "words": words, "figures": figures, "seconds": perf_counter() - started}


def find_check(name: str) -> Callable[[Setting, Findings], None]:
    import device_costs
    import device_programs
    import device_proofs

    homes = (device_costs, device_proofs, device_programs)
    found: Callable[[Setting, Findings], None] = next(getattr(each, name) for each in homes if hasattr(each, name))
    return found


def line_of(result: Result) -> str:
    """Return the line of a check."""
    figures = [f"{name} {value:.3g}" for name, value, *_ in result["figures"]]
    words = "; ".join([*result["words"], *figures])
    return f"{result['verdict']:4} {result['check']} ({result['seconds']:.1f} s): {words}"


def table(results: Sequence[Result]) -> list[str]:
    """Return the lines of all figures, their goals beside them."""
    rows = [figure for result in results for figure in result["figures"]]
    width = max([len(name) for name, *_ in rows], default=0)
    lines = [f"{name:{width}}  {value:8.3f}  {goal:14}  {'' if met else 'missed'}" for name, value, goal, met in rows]
    return [line.rstrip() for line in lines]


def work(names: Sequence[str], arguments: argparse.Namespace, path: Path) -> None:
    """Run checks in this process, and append what each has found to a file, a JSON value a line."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it once, when it starts
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    import torch
    from device_runs import Setting

    started = perf_counter()
    setting = Setting(
        torch.device(arguments.device), arguments.quick, arguments.compile, arguments.ranks, arguments.profile
    )
    if setting.on_cpu:
        torch.set_num_threads(1)
    for name in names:
        if perf_counter() - started > arguments.seconds:
            _append(
                path, {"check": name, "verdict": "SKIP", "words": ["no time is left"], "figures": [], "seconds": 0.0}
            )
            continue
        _append(path, {"begins": name})
        _append(path, run_check(name, setting))
        gc.collect()
        if not setting.on_cpu:
            with suppress(AttributeError):
                torch.accelerator.empty_cache()


def _append(path: Path, value: Result) -> None:
    with path.open("a") as file:
        file.write(json.dumps(value) + "\n")


def lead(names: list[str], arguments: argparse.Namespace) -> list[Result]:
    """Have all checks run, in one process or, where one hangs or ends it, in several; print a line for each."""
    results: list[Result] = []
    ends = perf_counter() + arguments.seconds
    with tempfile.TemporaryDirectory() as folder:
        while names:
            path = Path(folder, f"{len(names)}.jsonl")
            path.touch()
            command = [sys.executable, str(HERE), *sys.argv[1:], "--worker", str(path), "--only", ",".join(names)]
            worker = subprocess.Popen([*command, "--seconds", str(max(ends - perf_counter(), 0.0))])
            results += _results_of(worker, path, names, arguments.limit)
    return results


def _results_of(worker: subprocess.Popen[bytes], path: Path, names: list[str], limit: float) -> list[Result]:
    """Return the results of one process, which leave `names`, until it has ended or one check takes too long."""
    results: list[Result] = []
    begun, since = None, perf_counter()
    with path.open() as file:
        while True:
            has_ended = worker.poll() is not None
            for line in file:
                entry = json.loads(line)
                begun, since = entry.get("begins"), perf_counter()
                if begun is None:
                    names.remove(entry["check"])
                    results.append(entry)
                    print(line_of(entry), flush=True)
            seconds = perf_counter() - since
            if has_ended or seconds > limit:
                break
            sleep(0.05)
    if not has_ended:
        worker.send_signal(signal.SIGUSR1)  # it prints where all its threads are
        sleep(0.5)
        worker.kill()
    code = worker.wait()
    if names and (code or begun is not None):
        name = begun or names[0]
        words = f"the process ended with {code}" if has_ended else f"it took more than {limit:g} s"
        entry = {"check": name, "verdict": "FAIL", "words": [words], "figures": [], "seconds": seconds}
        names.remove(name)
        results.append(entry)
        print(line_of(entry), flush=True)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=220, help="after which no further check begins")
    parser.add_argument("--limit", type=float, default=75, help="seconds that one check may take")
    parser.add_argument("--quick", action="store_true", help="small sizes and few turns, as for a dry run on a CPU")
    parser.add_argument("--only", default=",".join(CHECKS), help="names of checks, by commas")
    parser.add_argument("--compile", action="store_true", help="also a compiled model: half a minute more")
    parser.add_argument("--ranks", action="store_true", help="also two ranks of DDP over gloo on this one device")
    parser.add_argument("--profile", action="store_true", help="also which functions take the host's time")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        parser.error(f"there are no checks {', '.join(unknown)}: there are {', '.join(CHECKS)}")
    sys.path[:0] = [str(SOURCE), str(HERE.parent)]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH")]))
    if arguments.worker:
        work(names, arguments, arguments.worker)
        return 0
    started, results = perf_counter(), lead(names, arguments)
    print("-" * 100)
    print("\n".join(table(results)))
    counts = {
        verdict: sum(each["verdict"] == verdict for each in results) for verdict in ("PASS", "FAIL", "NOTE", "SKIP")
    }
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()), f"in {perf_counter() - started:.0f} s")
    return counts["FAIL"]


if __name__ == "__main__":
    sys.exit(main())
