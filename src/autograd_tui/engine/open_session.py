"""How frame 0 is made: by the scenario's own code, with the same global state, however often."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from threading import Thread
from typing import Any

import torch

from autograd_tui import __version__
from autograd_tui.core.errors import Refused
from autograd_tui.core.files import file_sha256, found_in, go_to, working_folder
from autograd_tui.core.optimizer_spec import LrDecay, OptimizerSpec
from autograd_tui.core.run_config import BUILT_IN, DEFAULT_MEMORY, DIGEST_VERSION, RunConfig, read_size, sha256
from autograd_tui.core.run_observer import Interrupted
from autograd_tui.core.session_protocol import SessionInfo
from autograd_tui.engine.replay.checkpoints import CheckpointStore
from autograd_tui.engine.session import Session
from autograd_tui.engine.tracing.phase_tracer import PhaseTracer
from autograd_tui.engine.training.accelerator import choose_device, device_versions, use_deterministic_algorithms
from autograd_tui.engine.training.global_state import GlobalState, HostRng
from autograd_tui.engine.training.interruption import Interrupt, interruptible
from autograd_tui.engine.training.optimizers import override_spec
from autograd_tui.engine.training.scenario import Options, Parts, Scenario, flag
from autograd_tui.engine.training.state import TrainingState
from autograd_tui.engine.training.state_file import InitialState
from autograd_tui.engine.training.trainer import Trainer
from autograd_tui.engine.training.user_code import ForkGuard, in_words, is_user_error, place_of
from autograd_tui.scenarios.find import find

HOST_RNG_TRIAL_COMMANDS = 16  # after which it is known whether a model draws random numbers of Python's or NumPy's


class StateBuilder:
    """Builds the training state of a session, each time with the global state that there was when it was opened."""

    def __init__(self, build: Callable[[GlobalState], TrainingState], global_state: GlobalState) -> None:
        self._build, self._global_state = build, global_state

    def __call__(self) -> TrainingState:
        """Build a new state; raises Refused where the scenario does."""
        global_state = self._global_state.copy()
        with global_state:
            state = self._build(global_state)
        global_state.limit_host_rng_swaps(HOST_RNG_TRIAL_COMMANDS)
        return state


MAX_THREADS = 1024


def open_session(
    scenario: str | Scenario = "linear",
    *,
    seed: int = 0,
    device: str | None = None,
    threads: int | None = None,
    optimizer: str | None = None,
    lr: float | None = None,
    momentum: float | None = None,
    weight_decay: float | None = None,
    decay: str | None = None,
    memory: str | int = "1GiB",
    state: str | None = None,
    deterministic: bool = False,
    **options: Any,
) -> Session:
    """Open a training session at frame 0, as the command line's options of the same names do.

    scenario: "linear", "resnet18" and so on, "my_model.py", "my_model.py:name", or what @scenario made.
    optimizer: "adam", or with options "sgd,momentum=0.9"; the scenario's own by default.
    decay: "plateau[:factor[:patience[:min_lr]]]".
    memory: for the checkpoints that make going back quick: "500MB", or bytes.
    state: a file with what the model, and the optimizer, begin with; an lr given here holds nevertheless.
    deterministic: ask PyTorch for algorithms that give the same bits each time, for the whole process from here on.
    options: the scenario's own, such as batch_size; None leaves the default.
    Raises Refused, in one sentence, where something has no meaning here.
    """
    requested = SessionOptions(
        seed, device, threads, optimizer, lr, momentum, weight_decay, decay, memory, state, deterministic
    )
    return _open(scenario, requested, options, working_folder())


def open_again(
    config: RunConfig,
    scenario: str,
    *,
    memory: str | None = None,
    allow_files: bool = True,
    changed: bool = True,
) -> Session:
    """Open at frame 0 the session that a run's configuration describes; it may be from a journal of somebody else.

    scenario: its name, as the user gives it now. memory: in place of the configuration's.
    Raises Refused, before any file is opened, where it asks for one and not `allow_files`, and where one is
    not as it was and not `changed`.
    """

    def check(opened: Mapping[str, Any]) -> None:
        if opened and not allow_files:
            listed = ", ".join(f"{flag(name)} {value}".replace("= ", "=", 1) for name, value in opened.items())
            raise Refused(f"this run asks for what you have not named yourself, {listed}: --allow-files takes it.")

    arguments = {**config.arguments, **({"memory": memory} if memory else {})}
    requested, digest_version = SessionOptions(**arguments), config.digest_version
    session = _open(scenario, requested, config.own, config.folder, check=check, digest_version=digest_version)
    if not changed and (differing := config.changed(session.about.config)):
        raise Refused(f"{' and '.join(differing)}: not as it was in this run; --changed takes it all the same.")
    return session


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """The options of any session, whatever its scenario, as `open_session` takes them."""

    seed: int = 0
    device: str | None = None
    threads: int | None = None
    optimizer: str | None = None
    lr: float | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    decay: str | None = None
    memory: str | int = "1GiB"
    state: str | None = None
    deterministic: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 1 << 40:
            raise Refused(f"--seed must be a whole number from 0 up to {(1 << 40) - 1}, not {self.seed}.")
        if self.threads is not None and not 1 <= self.threads <= MAX_THREADS:
            raise Refused(f"--threads must lie between 1 and {MAX_THREADS}, not {self.threads}.")

    @property
    def budget(self) -> int:
        """The bytes that checkpoints may take; raises Refused."""
        if isinstance(self.memory, int) and self.memory < 0:
            raise Refused(f"--memory must be a number of bytes, not {self.memory}.")
        return self.memory if isinstance(self.memory, int) else read_size(self.memory)

    @property
    def optimizer_options(self) -> dict[str, float]:
        """The optimizer's options that are not None, without the learning rate."""
        both = {"momentum": self.momentum, "weight_decay": self.weight_decay}
        return {name: value for name, value in both.items() if value is not None}

    def non_defaults(self, lr_decay: LrDecay | None) -> dict[str, Any]:
        """Return the options that are not the default."""
        values: dict[str, Any] = {"seed": self.seed or None, "device": self.device, "threads": self.threads}
        values |= {"optimizer": self.optimizer, "lr": self.lr, **self.optimizer_options}
        values |= {"decay": None if lr_decay is None else str(lr_decay)}
        values |= {"deterministic": self.deterministic or None}
        values |= {"memory": None if self.budget == DEFAULT_MEMORY else self.memory, "state": self.state}
        return {name: value for name, value in values.items() if value is not None}


def _open(
    scenario: str | Scenario,
    requested: SessionOptions,
    options: Mapping[str, Any],
    folder: str | None,
    *,
    check: Callable[[Mapping[str, Any]], None] = lambda opened: None,
    digest_version: int = DIGEST_VERSION,
) -> Session:
    """Open a session. folder: from where relative names of files are meant.

    check: may raise Refused, knowing by option what would be opened, before it is. digest_version: which numbers the
    frames have.
    """
    own_options = {name: value for name, value in options.items() if value is not None}
    if requested.threads is not None:
        torch.set_num_threads(requested.threads)
    if requested.deterministic:
        use_deterministic_algorithms()
    budget = requested.budget
    lr_decay = LrDecay.parse(requested.decay) if requested.decay is not None else None
    optimizer_options = (
        requested.optimizer_options if requested.lr is None else {"lr": requested.lr, **requested.optimizer_options}
    )
    current_folder = working_folder()  # which code of a scenario may leave
    folder = folder or current_folder
    if requested.state == "":
        raise Refused("--state needs a file's name, and none was given.")
    state_option = {} if requested.state is None else {"state": requested.state}
    scenario_hash = sha256(scenario) if isinstance(scenario, str) else None
    global_state = GlobalState()
    with global_state:
        torch.manual_seed(requested.seed)  # for what a file does before, or without, a build
        HostRng.seed(requested.seed)  # before the import, since a file may seed them itself
        definition = find(scenario) if isinstance(scenario, str) else scenario
        device = definition.defaults.get("device") if requested.device is None else requested.device
        chosen_device = choose_device(device)
    own_code = not (isinstance(scenario, str) and scenario in BUILT_IN)
    check(state_option | definition.opened_options(own_options, own_code=own_code))
    build_folder, file_options = working_folder(), definition.file_options(own_options)
    files = {name: found_in((folder, current_folder), path) for name, path in (state_option | file_options).items()}
    hashes = _Hashes(files)
    initial_state = InitialState(files["state"], optimizer_options) if state_option else None
    build_options = own_options | {name: files[name] for name in file_options}

    def build(global_state: GlobalState) -> TrainingState:
        go_to(build_folder)
        global_state.add_device(chosen_device)
        torch.manual_seed(requested.seed)
        parts = _build(definition, definition.options(requested.seed, build_options, device=chosen_device))
        spec = override_spec(
            OptimizerSpec.parse(parts.optimizer), requested.optimizer, requested.lr, requested.optimizer_options
        )
        with _refusing_user_errors(definition.title):  # the model's own `to` and `train` are called
            state = TrainingState(parts, spec, device=chosen_device, decay=lr_decay, global_state=global_state)
        if initial_state is not None:
            initial_state.put_into(state)
        return state

    trainer = Trainer(StateBuilder(build, global_state), PhaseTracer, sampled_range=digest_version > 1)
    parts = trainer.state.parts
    paths = {} if folder == current_folder else files  # names that are meant from elsewhere are told whole
    config = RunConfig(
        scenario if isinstance(scenario, str) else definition.title,
        requested.non_defaults(lr_decay) | {name: paths[name] for name in state_option if name in paths},
        {**own_options, **parts.settled, **{name: paths.get(name, own_options[name]) for name in file_options}},
        device=chosen_device,
        threads=torch.get_num_threads(),
        versions=_versions() | device_versions(chosen_device),
        sha256=scenario_hash,
        hashes=hashes.result(),
        folder=current_folder,
        digest_version=digest_version,
    )
    about = SessionInfo(
        definition.title,
        chosen_device,
        requested.seed,
        config,
        parts.names,
        parts.class_names,
        tied=trainer.state.tied_names(),
        listing=_listing(parts, lr_decay),
        picture=_picture_title(parts),
        memory=budget,
    )
    return Session(trainer, about=about, checkpoints=CheckpointStore(trainer, budget=budget))


def _picture_title(parts: Parts) -> str:
    """Return the name of the picture function as a title, "" where there is none: "decision boundary"."""
    if parts.picture is None:
        return ""
    name = getattr(parts.picture, "__name__", "")
    return name.replace("_", " ").strip().capitalize() if isinstance(name, str) and name.isidentifier() else "Picture"


class _Hashes:
    """Hashes files on a thread beside what loads them: neither waits for the other."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files, self._hashes = files, dict[str, str | None]()
        self._thread = Thread(target=self._hash, daemon=True)
        if files:
            self._thread.start()

    def _hash(self) -> None:
        for name, path in self._files.items():
            self._hashes[name] = file_sha256(path)

    def result(self) -> dict[str, str | None]:
        """Return the hashes by option; None for what is no file."""
        if self._files:
            self._thread.join()
        return self._hashes


def _build(scenario: Scenario, options: Options) -> Parts:
    """Call the scenario's own code."""
    with _refusing_user_errors(scenario.title):
        parts = interruptible(lambda: scenario.build(options))
    if not isinstance(parts, Parts):
        raise Refused(f'"{scenario.title}" must return Parts(...), not {type(parts).__name__}.')
    return parts


@contextmanager
def _refusing_user_errors(title: str) -> Iterator[None]:
    """Run other people's code: what it raises is refused in one sentence."""
    try:
        with ForkGuard():
            yield
    except Refused:
        raise
    except Interrupt as error:
        raise Interrupted(f'"{title}" was interrupted while it was built{place_of(error)}.') from error
    except BaseException as error:
        if not is_user_error(error):
            raise
        raise Refused(f'"{title}" could not be built: {in_words(error)}') from error


def _listing(parts: Parts, decay: LrDecay | None) -> dict[str, tuple[str, ...]]:
    """Return the source lines of each phase: the scenario's own, else those of any loop."""
    predicts = "prediction = model(inputs)\nloss = loss_function(prediction, targets)"
    sources = {
        "setup": "",
        "forward": predicts if parts.loss else "loss = forward(model, batch)",
        "backward": "loss.backward()",
        "step": "optimizer.step()",
        "zero_grad": "optimizer.zero_grad()",
    }
    sources |= parts.listing
    if decay:
        sources["step"] += "\n" + decay.line
    return {phase: tuple(source.splitlines()) for phase, source in sources.items()}


def _versions() -> dict[str, str]:
    """Return the versions that the numbers depend on; torchvision's without importing it."""
    return {
        "autograd-tui": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
    }
