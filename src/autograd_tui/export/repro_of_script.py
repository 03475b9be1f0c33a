"""A forward of a script as a plain PyTorch script, with a file of models and tensors beside it. It is tried once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from autograd_tui.core.errors import Refused
from autograd_tui.core.files import is_locked, new_file, try_lock
from autograd_tui.core.frame import TorchError
from autograd_tui.core.run_config import RunConfig
from autograd_tui.core.script_stop import ScriptRepro
from autograd_tui.core.session_protocol import StoredFramesSession
from autograd_tui.export.formats import ProtectedFiles, check_output, checked_script, output_paths
from autograd_tui.export.script_parts import comment
from autograd_tui.export.template import fill_section
from autograd_tui.text.styled_text import printable

MAX_SECONDS = 120.0  # that the script may take, of which PyTorch's import is most
POLL_SECONDS = 0.05
CLAIM_NAME = "being-tried"  # in the folder where a repro is tried: locked for as long as that goes on
MAX_REASON_LENGTH = 200  # characters of what it has raised


def export_script_repro(
    path: Path, session: StoredFramesSession, *, sources: ProtectedFiles, stopped: Callable[[], bool] = lambda: False
) -> str:
    """Write the forward of where a script is held, and a script beside it, once that has given the same loss.

    Return a note for the user. Raises Refused, with nothing written, where it cannot be, or where it is `stopped`.
    """
    targets = output_paths(path)
    for each in targets:
        check_output(each, overwrite=False, sources=sources)
    try:
        folder, claim = _new_folder(path)
    except OSError as error:
        raise Refused(f"{path} could not be written: {error.strerror or error}.") from error
    try:
        parts = [folder / each.name for each in targets]
        repro = session.write_repro(parts[0])
        text = checked_script(script_text(session.about.config, repro, path.name), parts[1].name)
        with os.fdopen(new_file(parts[1]), "wb") as file:
            file.write(text)
        outcome = _try(parts[1], repro, session.frame.error, stopped)
        for part, target in zip(parts, targets, strict=True):
            check_output(target, overwrite=False, sources=sources)
            os.replace(part, target)
    except OSError as error:
        raise Refused(f"{path} could not be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(claim)
    return f"{targets[1].name} repeats this forward: tried, {outcome}"


def _new_folder(path: Path) -> tuple[Path, int]:
    """Make a folder beside a file to try a repro in, and claim it; remove those that a program which was killed left.

    Return it with the descriptor of the claim.
    """
    prefix = f".{path.stem}-"
    for left in path.parent.iterdir():
        with suppress(OSError):
            if left.name.startswith(prefix) and not is_locked(left / CLAIM_NAME) and left.stat().st_uid == os.getuid():
                shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=path.parent))
    claim = new_file(folder / CLAIM_NAME, 0o600)
    try_lock(claim)
    return folder, claim


def script_text(config: RunConfig, repro: ScriptRepro, name: str) -> str:
    """Return the script, which reads the file `name` beside it."""
    standard = ["import sys"] if repro.folders else []
    standard += [each for each in repro.imports if _is_standard(each) and each not in standard]
    own = [each for each in repro.imports if not _is_standard(each)]
    folders = [_path_line(folder, names) for folder, names in repro.folders.items()]
    gradients = fill_section("script_repro", "gradients", result=repro.result, parameters=_parameters(repro))
    lines = fill_section(
        "script_repro",
        "script",
        header=_header(config, repro, name),
        future=[*repro.future, ""] if repro.future else [],
        standard=standard,
        imports=[*([""] * bool(folders)), *folders, *([""] * bool(folders and own)), *own],
        definitions=_definitions(config, repro),
        variables=[f'{name} = saved["{name}"]' for name in repro.names],
        settings=list(repro.settings),
        calls=list(repro.calls),
        result=repro.result,
        gradients=gradients,
    )
    return "\n".join(lines) + "\n"


def _header(config: RunConfig, repro: ScriptRepro, name: str) -> list[str]:
    versions = " and ".join(f"{name} {version}" for name, version in repro.versions.items())
    lines = [
        f"The forward of iteration {repro.iteration}, to frame {repro.frame}, of: {config.command_line}",
        f"Its loss was {repro.loss}, with {versions}.",
        f"{name} beside this file has the models, tensors and random numbers as they were before it.",
    ]
    return [comment(each) for each in (*lines, *repro.notes)]


def _path_line(folder: str, names: list[str]) -> str:
    """Return the line by which modules of the user's own are found."""
    verb = "is" if len(names) == 1 else "are"
    return f"sys.path.insert(0, {json.dumps(folder, ensure_ascii=False)})  # {' and '.join(names)} {verb} there"


def _parameters(repro: ScriptRepro) -> str:
    """Return the dict of all parameters by name."""
    if len(repro.parameters) == 1 and repro.parameters[0].startswith("**"):
        return repro.parameters[0].removeprefix("**")
    return "{" + ", ".join(repro.parameters) + "}"


def _definitions(config: RunConfig, repro: ScriptRepro) -> list[str]:
    if not repro.definitions:
        return []
    definitions = list(repro.definitions)
    while definitions and not definitions[0]:
        del definitions[0]
    return ["", "", comment(f"From {os.path.basename(config.scenario)}:"), *definitions]


def _is_standard(line: str) -> bool:
    return line.split()[1].partition(".")[0] in sys.stdlib_module_names


def _try(script: Path, repro: ScriptRepro, error: TorchError | None, stopped: Callable[[], bool]) -> str:
    """Run the script once, and return what came of it; raises Refused where its loss is not the one of the run.

    error: which the script is held at; it counts as repeated where the backward raises it.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [repro.python, script.name],
            cwd=script.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        deadline = time.monotonic() + MAX_SECONDS
        try:
            while process.poll() is None:
                if stopped():
                    raise Refused("the repro was stopped: nothing is written.")
                if time.monotonic() > deadline:
                    raise Refused(f"no repro is written: tried, it took more than {MAX_SECONDS:.0f} s.")
                time.sleep(POLL_SECONDS)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
        output.seek(0)
        lines = output.read().decode(errors="replace").split("\n")
    losses = [each.removeprefix("loss ") for each in lines if each.startswith("loss ")]
    last = next((each.strip() for each in reversed(lines) if each.strip()), f"exit code {process.returncode}")
    if losses and repro.loss not in losses:
        raise Refused(
            f"no repro is written: tried by itself, the forward gives the loss {losses[0]}, not {repro.loss}."
        )
    if losses and process.returncode and error is not None and last.startswith(f"{error.type}: "):
        return f"it raises the same {error.type}"
    if process.returncode or not losses:
        reason = printable(last)[:MAX_REASON_LENGTH].removesuffix(".")
        raise Refused(f"no repro is written: tried by itself, it ends with {reason}.")
    if error is not None:
        raise Refused(f"no repro is written: the last forward with a loss runs without the {error.type} behind it.")
    return "its loss is NaN too" if repro.loss == "nan" else "its loss is the same to the bit"
