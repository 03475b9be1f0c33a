"""A frame in one line: a row of a readable table, and the first row of the screen."""

from __future__ import annotations

from autograd_tui.core.frame import Frame, TorchError
from autograd_tui.core.script_stop import ScriptStop
from autograd_tui.core.session_protocol import DeviceLoad, SessionInfo
from autograd_tui.core.tensor_stats import StatsTable, TensorStats
from autograd_tui.text.numbers import rate
from autograd_tui.text.optimizer_words import OPTIMIZER_NAMES, rates
from autograd_tui.text.script_lines import stop_position
from autograd_tui.text.styled_text import Line, justified, length, printable

MIN_GAP = 2  # columns between the two halves of the screen's first row
HEADER = (
    f"{'frame':>6}  {'command':<12}  {'iteration':>9}  {'steps':>5}  {'loss':>12}  {'lr':>8}  parameters and gradients"
)


def frame_line(frame: Frame) -> str:
    """Write one frame in columns under HEADER; a loss that parameters have moved on from is marked "old"."""
    loss = "-" if frame.loss is None else f"{frame.loss:.6g}"
    columns = printable(
        f"{frame.index:>6}  {frame.command!s:<12}  {frame.iteration:>9}  {frame.steps:>5}  "
        f"{loss + ' old' * frame.loss_is_old:>12}  {rate(frame.learning_rate):>8}  {_tensors(frame)}{_metrics(frame)}"
    )
    if frame.error is None:
        return columns
    return f"{columns}\n{'raised':>14}  {error_line(frame.error)}"


def error_line(error: TorchError) -> str:
    """Write what was raised in one line: its type and its first sentence."""
    first = error.message.strip().split("\n")[0].split(". ")[0]
    return printable(f"{error.type}: {first}" if first else error.type)


def raised_line(error: TorchError) -> str:
    """Write what was raised, all of its message, and on which line."""
    message = f"{error.type}: {error.message}" if error.message else error.type
    return f"{message} ({error.file.rpartition('/')[2]}, line {error.line})" if error.line else message


def _tensors(frame: Frame) -> str:
    """Name each tensor's values where they all fit, else give the norms over all of them."""
    if frame.params.whole and sum(row.size for row in frame.params) <= 4:
        pairs = zip(frame.params, frame.grads, strict=True)
        return "   ".join(f"{row.name} {_values(row)} grad {_values(grad)}" for row, grad in pairs)
    grads = _norm(frame.grads.table) if any(frame.grads.backwards) else "None"
    return f"|params| {_norm(frame.params)}   |grads| {grads}"


def _norm(table: StatsTable) -> str:
    """Write the norm over all tensors that have one, as at least that where some have none."""
    norm = table.least_norm()
    return "-" if norm is None else f"{'>=' * bool(table.layout.left_out())}{norm:.6g}"


def _metrics(frame: Frame) -> str:
    """Name the metrics, which are of the prediction, and as old as it is."""
    return "".join(f"   {name} {value:.6g}{' old' * frame.loss_is_old}" for name, value in frame.metrics)


def _values(row: TensorStats | None) -> str:
    if row is None:
        return "None"
    if row.values is None:
        return "-" if row.norm is None else f"norm {row.norm:.6g}"
    written = [f"{value:.6g}" for value in row.values]
    return written[0] if len(written) == 1 else "[" + " ".join(written) + "]"


def status_line(
    frame: Frame, about: SessionInfo, newest: int, width: int, *, unkept: str = "", load: DeviceLoad | None = None
) -> Line:
    """Write the row; what matters least goes first where room is short, and never that the run is `unkept`.

    load: what is in use of the device now.
    """
    if frame.script is not None:
        return _script_status_line(frame, frame.script, about, newest, width, unkept=unkept, load=load)
    name, _, options = frame.optimizer.partition(",")
    optimizer = f" · {OPTIMIZER_NAMES.get(name, name)} lr {rates(frame)}"
    details = " " + options.replace(",", " ").replace("=", " ") if options else ""
    right = _position(frame, newest)
    whole = [optimizer, details, f" · {about.device}", f" · seed {about.seed}"]
    loaded = [f"{whole[2]} {words}" for words in load_words(load)]
    marks = [(unkept, [optimizer, details, device, whole[3]]) for device in loaded]
    marks += [(unkept, [optimizer, details, device]) for device in loaded[2:]]
    marks += [(unkept, whole), (unkept, whole[:3]), (unkept, [optimizer, whole[2]]), (unkept, [optimizer])]
    for mark, parts in (*marks, (unkept, []), ("!" * bool(unkept), [])):
        left: Line = [*unkept_mark(mark), (f" {about.title}", "strong"), ("".join(parts), "")]
        if length(left) + length(right) + MIN_GAP <= width:
            break
    return justified(left, right, width)


def _position(frame: Frame, newest: int) -> Line:
    looks_back = frame.index < newest
    return [
        (f"iteration {frame.iteration}   ", ""),
        (f"frame {frame.index} of {newest} ", "now" if looks_back else ""),
    ]


def _script_status_line(
    frame: Frame,
    stop: ScriptStop,
    about: SessionInfo,
    newest: int,
    width: int,
    *,
    unkept: str,
    load: DeviceLoad | None,
) -> Line:
    """Write the row of a script: where it is held, its optimizers, how far it has come."""
    right = _position(frame, newest)
    position = stop_position(stop)
    same_file = position.startswith(f"{about.title}:")
    place = f"{about.title}:{stop.line}" if same_file else f"{about.title} · {position}" if position else about.title
    optimizers = _optimizers_of(frame, stop)
    device = f" · {stop.device}"
    loaded = load_words(load) if stop.device == "cpu" else []  # of the host, whatever computes
    short = [(right, [place, optimizers, f"{device} {words}"]) for words in loaded]
    short += [(right, [place, optimizers, device]), (right, [place, optimizers]), (right, [place, ""])]
    brief: Line = [(f"iteration {frame.iteration} ", "")]
    for numbers, (where, *parts) in (*short, (brief, [place, ""]), (brief, [position or about.title, ""])):
        left: Line = [*unkept_mark(unkept), (f" {where}", "strong"), ("".join(parts), "")]
        if length(left) + length(numbers) + MIN_GAP <= width:
            break
    return justified(left, numbers, width)


def _optimizers_of(frame: Frame, stop: ScriptStop) -> str:
    """Name the optimizer and its learning rate; of several, each by its variable."""
    if not stop.steps:
        return " · no optimizer so far"
    lr = rate(frame.learning_rate) if len(set(frame.learning_rates)) == 1 else rates(frame)
    if len(stop.steps) > 1:
        return f" · {', '.join(name for name, _ in stop.steps)}, lr {lr}"
    name = frame.optimizer.partition(",")[0]
    return f" · {OPTIMIZER_NAMES.get(name, 'LBFGS' if name == 'lbfgs' else name)} lr {lr}"


def unkept_mark(unkept: str) -> Line:
    """Write at the beginning of a row, where nothing cuts it off, that the run is not kept."""
    return [(f" {unkept} ", "error")] if unkept else []


def load_words(load: DeviceLoad | None) -> list[str]:
    """Return the words, the longest first; none where nothing is known."""
    if load is None:
        return []
    if load.total is None:
        return [] if load.memory is None else [f"RSS {_gigabytes(load.memory)} GB"]
    used = "" if load.memory is None else f"{_gigabytes(load.memory)} of {_gigabytes(load.total)} GB"
    busy = "" if load.use is None else f"{load.use:.0%}"
    warm = "" if load.temperature is None else f"{load.temperature} °C"
    forms = [[used and f"{used} in use", busy and f"{busy} busy", warm], [used, busy, warm], [busy, warm]]
    words = [", ".join(filter(None, form)) for form in forms]
    return [each for each in words if each]


def _gigabytes(size: int) -> str:
    """Write a size in steps of a tenth, which change seldom: a terminal that shows nothing new stays quiet."""
    return f"{size / 1e9:.1f}"
