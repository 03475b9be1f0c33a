"""How each panel looks, and what must be true of the numbers and the words in it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from screen_oracle import Moment, Named
from screen_values import BARS, MARKED, NUMBER, SPREAD, Facts, Page, Truth, agrees, size


def read_panel(panel: str, rows: Sequence[str], title: str, facts: Facts) -> Page:
    """Read one panel; `panel` is its class's name."""
    moment = facts.moment
    page = Page(panel, rows, title, [*moment.params, *moment.buffers, *facts.names, *layers(moment.params)])
    READERS[panel](page, facts)
    return page


def layers(params: Named) -> dict[str, list[str]]:
    """Group names by the first part in which they differ."""
    parts = [name.split(".") for name in params]
    depth = next((d for d, (a, b) in enumerate(zip(min(parts), max(parts), strict=False), 1) if a != b), 1)
    found: dict[str, list[str]] = {}
    for name, part in zip(params, parts, strict=True):
        found.setdefault(".".join(part[:depth]), []).append(name)
    return found


# The panels.


def _status(page: Page, facts: Facts) -> None:
    moment = facts.moment
    name, *options = moment.optimizer.split(",")
    page.read(
        rf"· (\w+) lr ({MARKED})((?:[ ](?!iteration|frame)[a-z_]+[ ]{NUMBER})*)",
        lambda m: (
            m[1].lower() == name,
            float(f"{moment.learning_rate:.4g}"),
            not m[3].strip() or _same_options(m[3], options),
        ),
    )
    page.read(r"seed (\d+)", lambda m: (0,))
    page.read(r"iteration (\d+)", lambda m: (moment.iteration,))
    page.read(r"frame (\d+) of (\d+)", lambda m: (moment.index, len(facts.moments) - 1))


def _same_options(written: str, options: list[str]) -> bool:
    return written.split() == [word for option in options for word in option.split("=")]


def _phases(page: Page, facts: Facts) -> None:
    moment = facts.moment
    page.read(r"▌(\w+)▐", lambda m: (m[1].lower() == moment.phase,))
    if moment.phase and "▌" not in page.text:
        page.fault(f"no phase is marked after {moment.phase}")
    page.read(r"space: (\w+)", lambda m: (m[1] == moment.next_phase,))
    page.read(rf"\b(loss) ({MARKED})(?: (old))?", lambda m: ((m[3] is not None) == moment.old, moment.loss, True))
    losses = _losses_up_to(facts)
    page.read(
        rf"loss {MARKED} ([▲▼])(?:({NUMBER})%)?",
        lambda m: ((m[1] == "▲") == (losses[1] > losses[0]), abs(losses[1] - losses[0]) / losses[0] * 100),
    )
    for name in moment.params:
        page.read(rf"\bd{re.escape(name)} ({MARKED})", lambda m, name=name: (_only(moment.grads.get(name)),))  # type: ignore[misc]
        page.read(rf"(?<![\w.]){re.escape(name)} ({MARKED})", lambda m, name=name: (_change(moment, name, one=True),))  # type: ignore[misc]
    page.read(rf"\|grad\| ({MARKED})", lambda m: (size(moment.grads.values()),))
    page.read(rf"\|move\| ({MARKED})", lambda m: (_way(moment, moment.params),))
    page.read(r"(raised)", lambda m: (bool(moment.raised),))


def _losses_up_to(facts: Facts) -> tuple[float, float]:
    """Return the last two losses that forwards up to the frame shown have measured; NaN where there is none."""
    losses = [
        math.nan if each.loss is None else each.loss
        for each in facts.moments[1 : facts.moment.index + 1]
        if each.phase == "forward" and not each.raised
    ]
    before, now = [math.nan, math.nan, *losses][-2:]
    return before, now


def _only(tensor: Tensor | None) -> float | None:
    return float(tensor) if tensor is not None and tensor.numel() == 1 else None


def _stands_for(tensor: Tensor | None) -> float | None:
    """Give the value of a tensor that has one, else its norm."""
    if tensor is None:
        return None
    return float(tensor) if tensor.numel() == 1 else size([tensor])


def _change(moment: Moment, name: str, *, one: bool = False) -> float | None:
    if moment.before is None or (one and moment.mover != "step"):
        return None
    now, then = _stands_for(moment.params[name]), _stands_for(moment.before[name])
    assert now is not None
    assert then is not None
    return now - then


def _way(moment: Moment, names: Iterable[str]) -> float | None:
    if moment.before is None:
        return None
    return size(moment.params[name].double() - moment.before[name].double() for name in names)


def _rest(page: Page, shown: int, all_there_are: int) -> None:
    """Read how many rows there is no room for, above and below."""
    hidden = sum(int(each) for each in re.findall(r"[↑↓.] (\d+) more", page.text))
    page.read(r"[↑↓.] (\d+) more", lambda m: (shown + hidden == all_there_are,))


def _parameters(page: Page, facts: Facts) -> None:
    moment, rows = facts.moment, 0
    headed = bool(page.rows) and ".grad" in page.rows[0]
    if headed:
        _headings(page, moment)
    for name in moment.params:
        short = "|".join(re.escape("…" + name[-cut:]) for cut in range(3, len(name)))
        label = f"(?:{re.escape(name)}{'|' + short if short else ''})"
        pattern = (
            rf"^(?:▶ |  )?{label}[ ]+(?:([\d×]+)?[ ]+)?(?:norm[ ]+)?(?:({MARKED}|-) →[ ]+)?({MARKED}|-)"
            rf"(?:[ ]+([▲▼=]) ({MARKED}))?[ ]+({MARKED}|-|None|frozen)(?:[ ]+{SIGNED_BARS})?"
            rf"(?:[ ]+(was) ({MARKED}))?(?:[ ]+((?!was )[a-z].*?))?(?:[ ][ ]+({MARKED}))?[ ]*$"
        )
        rows += page.read(pattern, lambda m, name=name: _parameter_row(moment, name, m, headed))  # type: ignore[misc]
    _rest(page, rows, len(moment.params))


def _headings(page: Page, moment: Moment) -> None:
    """Read by what the parameters moved, and the age of all gradients, where they have the same."""
    now, step = moment.moved_at == moment.index and not moment.raised, moment.mover == "step"
    page.read(
        r"^.*(?<=[ ])(this step|last step|by you)(?=[ ])",
        lambda m: ({"this step": step and now, "last step": step and not now, "by you": not step}[m[1]],),
    )
    ages = all(_age_is_true(moment, name, words) for name in moment.params) if (words := _age_above(page)) else True
    page.read(r"^.*\.grad[ ]+((?!lowest)[a-z].*?)(?=[ ][ ]|[ ]*$)", lambda m: (ages,))


def _age_above(page: Page) -> str:
    found = re.search(r"\.grad[ ]+((?!lowest)[a-z].*?)(?=[ ][ ]|[ ]*$)", page.rows[0])
    return found[1] if found else ""


def _parameter_row(moment: Moment, name: str, match: re.Match[str], headed: bool) -> Sequence[Truth]:
    param, change = moment.params[name], _change(moment, name)
    was = None if moment.before is None else _stands_for(moment.before[name])
    shape = match[1] is None or match[1] == "×".join(map(str, param.shape))
    arrow = change is not None and match[4] == ("▲" if change > 0 else "▼" if change < 0 else "=")
    if match[6] in ("None", "frozen"):
        cleared = _stands_for(moment.cleared.get(name)) if moment.cleared else None
        said = _age_is_true(moment, name, match[9] or "")
        grad: Sequence[Truth] = (_age_is_true(moment, name, match[6]), True, cleared, said)
    else:
        age = (headed and match[9] is None) or _age_is_true(moment, name, match[9] or "")
        grad = (_stands_for(moment.grads.get(name)), False, False, age)
    return shape, was, _stands_for(param), arrow, change, *grad, LOWEST.get(name)


def _age_is_true(moment: Moment, name: str, said: str) -> bool:
    """Tell whether all that is said of a gradient's age is so."""
    said = " ".join(said.split())
    if name not in moment.grads:
        return {
            "frozen": name in moment.frozen,
            "None": True,
            "": True,
            "no gradient reached it": False,
            "unused by loss": False,
        }.get(said, False)
    summed, used = moment.backwards.get(name, 0), name in moment.used
    forward, params = moment.slopes[name]
    moved = not same_numbers(params, moment.params)
    if count := re.match(r"sum of (\d+)(?: backwards)?", said):
        rest = said[count.end() :].lstrip(", ")
        if int(count[1]) != summed:
            return False
    elif summed > 1:
        return False
    else:
        rest = said
    facts = {
        "": summed > 1 and not used,
        "fresh": not used and summed == 1 and not moved and forward == moment.forward,
        "used": used,
        "used by step, not cleared": used,
        "unused": not used and forward != moment.forward,
        "unused, from before this forward": not used and forward != moment.forward,
        "unused, not of the last backward": not used and name not in moment.reached,
        "before the move": not used and moved,
    }
    if before := re.fullmatch(r"(fresh, )?but from before (.*)", rest):
        return not used and moved and bool(before[2])
    if len(rest) > 16:  # it may be cut off at the panel's edge
        return any(true and known.startswith(rest) for known, true in facts.items())
    return facts.get(rest, False)


def same_numbers(one: Named, other: Named) -> bool:
    return one is other or all(torch.equal(one[name], other[name]) for name in one)


def _together(page: Page, moment: Moment) -> None:
    """Read what is said of all gradients."""
    _counts(page, moment, moment.params)
    page.read(rf"^\|grad\| ({MARKED})", lambda m: (size(moment.grads.values()),))
    page.read(
        rf"\|grad\| (was) ({MARKED})", lambda m: (moment.cleared is not None, size((moment.cleared or {}).values()))
    )
    page.read(rf"largest: (\S+)\.grad, ({MARKED})", lambda m: (m[1] in moment.grads, _greatest(moment)))
    page.read(rf"largest is (\S+)\.grad: ({MARKED})", lambda m: (m[1] in moment.grads, _greatest(moment)))


def _counts(page: Page, moment: Moment, names: Iterable[str]) -> None:
    """Read how many gradients are of what age: "12 used, 4 frozen"."""
    words = "used by step, not cleared|sum of \\d+, used|sum of \\d+|used|unused|fresh|None|frozen|before the move"
    count = r"(?:^|(?<=\.grad)|(?<=^gradient)|(?<=,[ ]))[ ]*((?:\d+ )?)"
    page.read(rf"{count}({words})(?=,[ ]|[ ]*$|, but|[ ][ ])", lambda m: _counted(moment, m, names))


def _counted(moment: Moment, match: re.Match[str], names: Iterable[str]) -> Sequence[Truth]:
    said = " ".join(match[2].split())
    alike = sum(_age_is_true(moment, name, said) for name in names if said != "None" or name not in moment.frozen)
    return (True if not match[1].strip() else int(match[1]) == alike), alike > 0


def _greatest(moment: Moment) -> float:
    norms = [size([grad]) for grad in moment.grads.values()]
    return next((norm for norm in norms if not math.isfinite(norm)), max(norms, default=math.nan))


SIGNED_BARS = rf"◀?{BARS}\|?█*▶?"
LOWEST = {"w": 4.0, "b": 1.0}  # where the loss of the line is lowest
COLUMNS = ("tensors", "values", "|params|", "|grad|", "its spread", ".grad is", "update", "last step", "you set")


def _table(page: Page, facts: Facts) -> None:
    moment, grouped, rows = facts.moment, layers(facts.moment.params), 0
    ends = {each: page.rows[0].find(each) + len(each) for each in COLUMNS if each in page.rows[0]}
    layer = ""
    offset = len(page.rows[0]) + 1
    for row in page.rows[1:]:
        label = row[3:].strip().split("  ")[0].split(" ")[0]
        inside = row[3:4] == " "
        if row.strip().startswith(".grad") and not inside:
            pass
        elif names := _of_row(label, layer, inside, grouped, moment):
            layer = label if not inside else layer
            _table_row(page, offset, row, names, ends, moment)
            rows += label != "all"
        offset += len(row) + 1
    if "▾" not in page.text:
        _rest(page, rows, len(grouped))
    _together(page, moment)


def _of_row(label: str, layer: str, inside: bool, grouped: dict[str, list[str]], moment: Moment) -> list[str]:
    """Give the parameters that a row is about."""
    if label == "all":
        return list(moment.params)
    if inside or label.startswith("…"):
        ending = label.lstrip("…")
        found = [name for name in moment.params if name.endswith(ending) and name.startswith(layer)]
        return found if len(found) == 1 else []
    return grouped.get(label, [label] if label in moment.params else [])


def _table_row(page: Page, offset: int, row: str, names: list[str], ends: dict[str, int], moment: Moment) -> None:
    edges = [0, *ends.values()]
    for left, (heading, right) in zip(edges, ends.items(), strict=False):
        cell = row[left:right].strip()
        cell = re.split(r"\s{2,}", cell)[-1]  # behind pictures, which have no heading of their own
        if left == 0:  # the name stands in it too
            cell = re.sub(r"^.*?\s{2,}(?=\S)", "", row[3:right].rstrip()) if "  " in row[3:right].strip() else ""
        at = row.rfind(cell, 0, right) if cell else -1
        if at >= 0:
            page.claim(offset + at, cell, _cell_truth(heading, cell, names, moment))


def _cell_truth(heading: str, cell: str, names: list[str], moment: Moment) -> Truth:
    grads = [moment.grads[name] for name in names if name in moment.grads]
    if heading == "tensors":
        return cell == str(len(names))
    if heading == "values":
        return cell.replace(" ", "") == str(sum(moment.params[name].numel() for name in names))
    if heading == "|params|":
        return size(moment.params[name] for name in names)
    if heading == "|grad|":
        if cell in ("None", "frozen"):
            return not grads and (cell == "None" or moment.frozen.issuperset(names))
        return size(grads)
    if heading == ".grad is":
        return cell == "mixed" or all(_age_is_true(moment, name, cell) for name in names)
    if heading in ("update", "last step", "you set"):
        return _update(cell, names, moment)
    return True  # a picture


def _update(cell: str, names: list[str], moment: Moment) -> Truth:
    way = _way(moment, names)
    if cell == "-":
        return way is None
    assert moment.before is not None
    start = size(moment.before[name] for name in names)
    if cell == "from 0":
        return start == 0
    if cell == "NaN":
        return way is not None and math.isnan(way / start)
    return way if way is None else way / start * 100


def _loss(page: Page, facts: Facts) -> None:
    moment = facts.moment
    page.read(rf"\A({MARKED})  (fresh|old)", lambda m: (moment.loss, (m[2] == "old") == moment.old))
    for name, value in moment.metrics.items():
        page.read(rf"   {name} ({MARKED})", lambda m, value=value: (value,))  # type: ignore[misc]
    page.read(r"(none before the first forward)", lambda m: (moment.loss is None,))
    series, values = _series(page, facts.moments[1:])
    left, left_values = _series(page, facts.left)
    finite = [each for each in (*values, *left_values) if math.isfinite(each)]
    low, high = min(finite, default=math.nan), max(finite, default=math.nan)
    slack = 1e-6 * (high - low)  # a tick is as near to an end as nobody sees

    def in_range(match: re.Match[str]) -> Sequence[Truth]:
        value = float(match[1])
        return (agrees(match[1], low) or agrees(match[1], high) or low - slack <= value <= high + slack,)

    page.read(rf"^[ ]*({NUMBER})[ ]?[┤│]", in_range)
    last = max((each.iteration for each in (*series, *left)), default=0)
    page.read(r"└(\d+)─", lambda m: (int(m[1]) == series[0].iteration,))
    page.read(r"─(\d+)(?=─)", lambda m: (series[0].iteration < int(m[1]) <= max(last, series[0].iteration + 1),))


def _series(page: Page, moments: Sequence[Moment]) -> tuple[list[Moment], list[float]]:
    """Give the moments that the plot has a point of, and their values."""
    if "Plot of |grad|" in page.title:
        series = [each for each in moments if each.phase == "backward" and not each.raised]
        return series, [size(each.grads.values()) for each in series]
    series = [each for each in moments if each.phase == "forward" and not each.raised]
    return series, [math.nan if each.loss is None else each.loss for each in series]


def _data(page: Page, facts: Facts) -> None:
    moment = facts.moment
    x, y, q = moment.inputs, moment.targets, moment.prediction
    if x is None or y is None or q is None:
        return
    named = dict(zip(facts.names, (x, y, q), strict=True))
    for name, tensor in named.items():
        shape, values = "x".join(map(str, tensor.shape)), tensor.double()
        age = rf"(?:[ ]+(old))?(?:[ ]+mean ({MARKED}))?(?:[ ]+({MARKED}) to ({MARKED}))?[ ]*$"
        old = moment.old and tensor is q
        mean, std, ends = float(values.mean()), float(values.std()), (float(values.min()), float(values.max()))
        page.read(
            rf"^{name}[ ]+({re.escape(shape)}){age}",
            lambda m, old=old, mean=mean, std=std, ends=ends: (True, old, m[3] and near(m[3], mean, std), *ends),  # type: ignore[misc]
        )
        if tensor is q and moment.old:
            page.read(rf"^{name}[ ]+{re.escape(shape)}([ ]+)(?!old|[ ])", lambda m: (False,))
    rows = {facts.names[0]: x, f"{facts.names[1]} truth": y, facts.names[2]: q}
    if not q.shape == y.shape == x.shape:
        return
    rows[f"{facts.names[2]} - {facts.names[1]}"] = q - y
    for label, tensor in (rows | {"squared": (q - y) ** 2}).items():
        _values_row(page, label, tensor.reshape(-1).double().tolist())
    page.read(rf"^squared.*mean ({MARKED})", lambda m: (moment.loss,))
    page.read(r"(?<=[ ])(old)(?=:|[ ]*$)", lambda m: (moment.old,))
    made_with = moment.loss_params or {}
    for name in made_with:
        page.read(rf"old:.*?\b{re.escape(name)} ({MARKED})", lambda m, name=name: (_only(made_with[name]),))  # type: ignore[misc]


def _values_row(page: Page, label: str, values: list[float]) -> None:
    """Read a row of values; they are compared in their order."""
    for match in re.finditer(rf"^{re.escape(label)}[ ]+((?:{MARKED}(?:[ ]+|$))+)", page.text, re.MULTILINE):
        found = list(re.finditer(MARKED, page.text[match.start(1) : match.end(1)]))
        for each, value in zip(found, values, strict=False):
            page.claim(match.start(1) + each.start(), each[0], value)


def _fit(page: Page, facts: Facts) -> None:
    moment = facts.moment
    if moment.prediction is None or moment.targets is None or moment.inputs is None:
        return
    heights = torch.cat([moment.prediction.reshape(-1), moment.targets.reshape(-1)])
    heights = heights[heights.isfinite()]
    ends = float(heights.min()), float(heights.max())
    page.read(rf"^[ ]*({NUMBER})[ ]*│", lambda m: (any(agrees(m[1], end) for end in ends),))
    page.read(rf"({NUMBER}) to ({NUMBER})", lambda m: (float(moment.inputs.min()), float(moment.inputs.max())))  # type: ignore[union-attr]
    page.read(r"\b(old)\b", lambda m: (moment.old,))
    if moment.old and "old" not in page.text + page.title:
        page.fault("an old prediction is not called old")


def _output(page: Page, facts: Facts) -> None:
    moment = facts.moment
    if moment.prediction is None or moment.targets is None:
        return
    q, y = moment.prediction.double(), moment.targets
    if q.dim() == 2:
        _output_title(page, moment)
        best = q[0].topk(5).indices.tolist()
        page.read(
            rf"class (\d+)[ ]+({MARKED})[ ]+{BARS}[ ]*(?:target ({MARKED}))?[ ]*(old)?",
            lambda m: (int(m[1]) in best, float(q[0, int(m[1])]), float(y[0, int(m[1])]), moment.old),
        )
        return
    page.read(rf"\A({MARKED}) (?:~?▕{SPREAD}▏|to) ({MARKED})", lambda m: (float(q.min()), float(q.max())))
    page.read(
        rf"mean ({MARKED}) std ({MARKED})", lambda m: (near(m[1], float(q.mean()), float(q.std())), float(q.std()))
    )
    page.read(r"\b(old)\b", lambda m: (moment.old,))
    _output_title(page, moment)


def near(written: str, mean: float, std: float) -> bool:
    """Tell whether a mean is right, as far as a sample can tell where it is from one."""
    if not written.startswith("~"):
        return agrees(written, mean)
    return abs(float(written[1:]) - mean) <= 6 * std / 32 + 1e-4


def _output_title(page: Page, moment: Moment) -> None:
    if moment.prediction is None or moment.targets is None:
        return
    shape = moment.prediction.shape
    for pattern, true in (
        (r"largest \d+ of (\d+)", shape[-1]),
        (r"(\d+) × \d+ pos", shape[1]),
        (r"× (\d+) pos", shape[-1]),
        (r"× (\d+) samples", shape[0]),
    ):
        if (found := re.search(pattern, page.title)) and int(found[1]) != true:
            page.fault(f'"{page.title}" where it is {true}')


def _buffers(page: Page, facts: Facts) -> None:
    moment = facts.moment
    before = moment.buffers_before
    changed = sum(before is not None and not torch.equal(before[name], each) for name, each in moment.buffers.items())
    page.read(r"changed all (\d+)", lambda m: (int(m[1]) == changed == len(moment.buffers),))
    page.read(r"changed (\d+) of (\d+)", lambda m: (changed, len(moment.buffers)))
    page.read(r"none of (\d+)", lambda m: (len(moment.buffers) if changed == 0 else False,))
    page.read(r"\A(\d+) as the model (was) built", lambda m: (len(moment.buffers), before is None))
    for name, tensor in moment.buffers.items():
        short = "|".join(re.escape("…" + name[-cut:]) for cut in range(8, len(name)))
        label = f"(?:{re.escape(name)}{'|' + short if short else ''})"
        was = None if before is None else _stands_for(before[name])
        page.read(
            rf"^{label}[ ]+(?:norm )?(?:({MARKED}) → )?(?:norm )?({MARKED})[ ]*$",
            lambda m, was=was, tensor=tensor: (was, _stands_for(tensor)),  # type: ignore[misc]
        )
    rows = [row for row in page.rows[1:] if row.strip() and not re.search(r"\d more$", row)]
    _rest(page, len(rows), len(moment.buffers))  # rows, not what was read: a name cut short is of several


def _explanation(page: Page, facts: Facts) -> None:
    moment = facts.moment
    page.read(rf"measured the loss ({MARKED})", lambda m: (moment.loss,))
    page.read(rf"The loss ({MARKED}) (is from before the parameters moved)", lambda m: (moment.loss, moment.old))
    page.read(rf"\(([^()=]+)\) / (\d+) [=≈] ({MARKED})", lambda m: _mean(m, moment))
    page.read(r"gradient of the loss for (\d+) parameters?", lambda m: (len(moment.reached),))
    page.read(
        r"the (sum of (?:\d+)) backwards",
        lambda m: (m[1].split()[-1] == str(max(moment.backwards.values(), default=0)),),
    )
    page.read(rf"learning rate is ({MARKED}) from the next step", lambda m: (float(f"{moment.learning_rate:.4g}"),))
    page.read(r"the learning rate is (0)\.", lambda m: (moment.step_rate == 0,))
    page.read(rf"empty state and lr ({MARKED})", lambda m: (float(f"{moment.learning_rate:.4g}"),))
    page.read(
        rf"v = ({MARKED}) v",
        lambda m: (float(dict(each.split("=") for each in moment.optimizer.split(",")[1:])["momentum"]),),
    )
    page.read(r"Frame (\d+): no phase has run before it", lambda m: (m[1] == "0" and moment.index == 0,))
    page.read(r"gone back to frame (\d+)", lambda m: (facts.latest,))
    page.read(r"frame (\d+) of (\d+): a command goes on", lambda m: (moment.index, len(facts.moments) - 1))
    page.read(r"a step has (used) these gradients", lambda m: (bool(moment.used),))
    page.read(r"The graph is (used)\b", lambda m: (moment.graph == "freed",))
    page.read(r"The optimizer is (\S+) now", lambda m: (m[1] == moment.optimizer,))
    page.read(r"every gradient is (None)", lambda m: (not moment.grads,))
    page.read(r"You set \S+?\[([\d,]+)\]=", lambda m: (f"[{m[1]}]=" in moment.command,))
    _together(page, moment)
    page.read(r"(None) again", lambda m: (not moment.grads,))
    page.read(rf"The loss ({MARKED}) is from", lambda m: (moment.loss,))
    page.read(r"(Nothing has run yet)", lambda m: (moment.index == 0,))
    page.read(r"(\d+) parameters with ([\d,]+) values", lambda m: (len(moment.params), m[2] == f"{_values(moment):,}"))
    page.read(r"(raised) (\w+)", lambda m: (bool(moment.raised), moment.raised))
    page.read(r"graph (?:is|has been) (used) (?:up )?and freed", lambda m: (moment.graph == "freed",))
    page.read(r"this backward (was) added", lambda m: (moment.found is not None,))
    page.read(r"each .grad.*?(was) (None) already", lambda m: (True, not moment.grads))
    page.read(r"(had nothing to clear)", lambda m: (not moment.cleared,))
    page.read(r"(cleared the gradients).*?(None) again", lambda m: (bool(moment.cleared), not moment.grads))
    page.read(r"by learning rate × its gradient, in the (downhill) direction", lambda m: (facts.slope() < 0,))
    page.read(rf"You set \S+?=({MARKED})", lambda m: (float(moment.command.partition("=")[2]),))
    page.read(
        r"(\S+) is (frozen)(?: no longer)?:",
        lambda m: (True, moment.command.startswith(m[1]) or m[1] == "parameter" or m[1] in moment.params),
    )
    page.read(r"(No parameter has moved)", lambda m: (moment.moved_at != moment.index,))
    page.read(
        r"(no parameter has changed)",
        lambda m: (moment.before is not None and same_numbers(moment.before, moment.params),),
    )
    for name in moment.params:
        _explained(page, facts, name)
    _story(page, facts)


def _story(page: Page, facts: Facts) -> None:
    """Read how the loss compares with the one before, what an iteration brought, and where the line's w is best."""
    moment = facts.moment
    before, now = _losses_up_to(facts)
    change = rf"(the same|(?:up|down) (?:{NUMBER} %|less than 0\.1 %|{NUMBER}-fold|by {NUMBER}))"
    page.read(rf"\bLoss ({MARKED}) → ({MARKED}): {change}", lambda m: (before, now, _is_change(m[3], before, now)))
    page.read(r"(the step before went too far)", lambda m: (now > before,))
    page.read(rf"Iteration (\d+): loss ({MARKED}),", lambda m: (m[1] == str(moment.iteration), now))
    page.read(
        rf"Iteration (\d+): loss ({MARKED}) → ({MARKED}), {change}",
        lambda m: (m[1] == str(moment.iteration), before, now, _is_change(m[4], before, now)),
    )
    if moment.before is not None:
        for name, new in moment.params.items():
            move = float(new - moment.before[name]) if new.numel() == 1 else math.nan
            page.read(rf"Iteration .*?, {name} ([+-]{NUMBER})", lambda m, move=move: (move,))  # type: ignore[misc]
    _largest_per_value(page, moment)
    if (x := moment.inputs) is None or (y := moment.targets) is None or set(moment.params) != {"w", "b"}:
        return
    w, b = (float(moment.params[name]) for name in "wb")
    best = float((x * (y - b)).sum() / (x * x).sum())
    page.read(
        rf"With b at ({MARKED}) w is best at ({MARKED}): the gradient sends w (up|down)",
        lambda m: (b, best, (m[3] == "up") == (best > w)),
    )


def _largest_per_value(page: Page, moment: Moment) -> None:
    """Read how many times larger one value of the gradient is in a layer than in another."""
    sizes = {}
    for layer, names in layers(moment.params).items():
        if all(name in moment.grads for name in names):
            values = torch.cat([moment.grads[name].detach().reshape(-1).double() for name in names])
            sizes[layer] = float(values.square().mean().sqrt())
    page.read(
        rf"Per value the gradient is ({MARKED}) times larger in (\S+) than in (\S+?)\.(?=\s|$)",
        lambda m: (
            abs(float(m[1].replace(",", "")) / (sizes[m[2]] / sizes[m[3]]) - 1) < 0.06,
            sizes[m[2]] == max(sizes.values()),
            sizes[m[3]] == min(filter(None, sizes.values())),
        ),
    )


def _is_change(said: str, before: float, now: float) -> bool:
    """Return whether "down 9.5 %", "up 12-fold" or "the same" is what two losses say."""
    if said == "the same" or before == now:
        return said == "the same" and before == now
    way, amount = said.split(" ", 1)
    if amount.startswith("less than"):
        return (way == "up") == (now > before) and abs(now - before) / before < 0.001
    if amount.startswith("by "):
        true = abs(now - before)
    elif amount.endswith("-fold"):
        true = now / before
    else:
        true = abs(now - before) / before * 100
    return (way == "up") == (now > before) and agrees(amount.removeprefix("by ").split("-fold")[0].split()[0], true)


def _values(moment: Moment) -> int:
    return sum(each.numel() for each in moment.params.values())


def _mean(match: re.Match[str], moment: Moment) -> Sequence[Truth]:
    return (comes_out(f"({match[1]}) / {match[2]}", match[3], exact="=" in match[0]), True, moment.loss)


def comes_out(expression: str, result: str, *, exact: bool) -> bool:
    """Tell whether a calculator shows the same result: "=" is held to the last digit, "≈" to a thousandth."""
    plain = re.sub(r"\s+", " ", expression).replace("×", "*").replace("≈", "")
    if re.search(r"NaN|inf", plain + result) or not re.fullmatch(r"[\d.e+\-*/() ]+", plain):
        return True
    value = eval(plain)  # digits and signs alone, see above
    terms = sum(abs(float(each)) for each in re.findall(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?", plain))
    return agrees(result, value) if exact else abs(value - float(result)) <= 1e-3 * (terms + abs(value))


def _explained(page: Page, facts: Facts, name: str) -> None:
    moment, label = facts.moment, rf"(?<![\w.]){re.escape(name)}"
    grad = moment.grads.get(name)
    end = rf"({MARKED})(?=[:,.]?(?:\s|$))"
    page.read(
        rf"{label}\.grad = (\d+/\d+ × \([^()]*\))(?: = ({MARKED} [+-] {MARKED}))? ([=≈]) {end}",
        lambda m: (
            comes_out(m[1], m[4], exact=m[3] == "=") if m[2] is None else True,
            m[2] is None or comes_out(m[2], m[4], exact=m[3] == "="),
            True,
            _only(grad),
        ),
    )
    page.read(rf"{label}\.grad = {end}(?!\s*[+-] )", lambda m: (_only(grad),))
    page.read(
        rf"{label}\.grad = ({MARKED} [+-] {MARKED}) ([=≈]) {end}",
        lambda m: (comes_out(m[1], m[3], exact=m[2] == "="), True, _only(grad)),
    )
    page.read(
        rf"raising {re.escape(name)} (raises|lowers)", lambda m: ((m[1] == "raises") == ((_only(grad) or 0) > 0),)
    )
    page.read(rf"{label}\.grad[^:]*?: a (sum of \d+)", lambda m: (m[1] == f"sum of {moment.backwards.get(name, 0)}",))
    page.read(rf"{label}: (None), (frozen)", lambda m: (grad is None, name in moment.frozen))
    page.read(
        rf"{label} stays: its gradient is (None)(?:, since it is (frozen))?",
        lambda m: (grad is None, name in moment.frozen),
    )
    now, was = _stands_for(moment.params[name]), moment.before and _stands_for(moment.before[name])
    page.read(rf"{label} ({MARKED}) → ({MARKED})", lambda m: (was, now))  # type: ignore[arg-type, return-value]
    rate = None if moment.step_rate is None else float(f"{moment.step_rate:.4g}")
    velocity = moment.state.get(name, {}).get("momentum_buffer")
    by = grad if velocity is None else velocity
    page.read(
        rf"{label} ({MARKED}) ([+-]) ({MARKED}) × ({MARKED}) ([=≈]) {end}",
        lambda m: (  # type: ignore[arg-type, return-value]
            was,
            by is not None and (m[2] == "-") == (float(by) >= 0),
            rate,
            None if by is None else abs(float(by)),
            comes_out(f"{m[1]} {m[2]} {m[3]} × {m[4]}", m[6], exact=m[5] == "="),
            now,
        ),
    )
    page.read(rf"{label} ({MARKED}): its gradient is (None)", lambda m: (was, grad is None))  # type: ignore[arg-type, return-value]
    page.read(rf"{label} moved by ({MARKED}) \(norm\)", lambda m: (_way(moment, [name]),))
    page.read(rf"(?:most|least): {re.escape(name)}, ({MARKED}%) of it", lambda m: (_update(m[1], [name], moment),))


def _selected(page: Page, facts: Facts) -> None:
    """Read the numbers of what is under the cursor: a parameter, as far as its name stands in the first row."""
    moment = facts.moment
    name = re.split(r"   | · ", page.rows[0].strip())[0].strip() if page.rows else ""
    grouped = layers(moment.params)
    if name in moment.params:
        names = [name]
    elif name in grouped:
        names = grouped[name]
    else:
        return
    tensors = {"value": [moment.params[each] for each in names]}
    tensors["gradient"] = [moment.grads[each] for each in names if each in moment.grads]
    state = moment.state.get(name, {})
    tensors |= {key: [tensor] for key, tensor in state.items()}
    page.read(
        r"(?<![\w.×])(\d[\d ]*)[ ]values?\b",
        lambda m: (m[1].replace(" ", "") == str(sum(moment.params[e].numel() for e in names)),),
    )
    page.read(r"^(\d+) parameters?", lambda m: (len(names),))
    page.read(rf"cosine to the gradient ({NUMBER})", lambda m: (_turned(state, tensors["gradient"]),))
    for label, held in tensors.items():
        block = _block(page, label)
        if block is not None and held:
            _statistics(page, *block, held)
    _selected_ages(page, moment, names, tensors["gradient"])


def _turned(state: Mapping[str, Tensor], grads: list[Tensor]) -> float:
    """Give the cosine of the angle between what the optimizer moves along and the gradient."""
    along = next((state[key] for key in ("momentum_buffer", "exp_avg") if key in state), None)
    if along is None or not grads:
        return math.nan
    return float((along.double() * grads[0].double()).sum()) / (size([along]) * size(grads))


def _selected_ages(page: Page, moment: Moment, names: list[str], grads: list[Tensor]) -> None:
    was = [moment.cleared[each] for each in names if moment.cleared and each in moment.cleared]
    page.read(rf"norm (was) ({MARKED})", lambda m: (True, size(was)))
    page.read(rf"moved[ ]+({MARKED}%) of its norm", lambda m: (_update(m[1], names, moment),))
    page.read(r"^gradient[ ]+(None): it is (frozen)", lambda m: (not grads, moment.frozen.issuperset(names)))
    norms = [size([grad]) for grad in grads]
    page.read(rf"largest[ ]+\S+, norm ({MARKED})", lambda m: (max(norms, default=math.nan),))
    if len(names) > 1:
        _counts(page, moment, names)
        return
    age = r"fresh(?:, but .*?)?|used by step, not cleared|used|sum of .*?|unused.*?|None|frozen"
    page.read(
        rf"^gradient\s+(?:{MARKED}\s+)?({age})(?=[ ][ ]|[ ]*$)", lambda m: (_age_is_true(moment, names[0], m[1]),)
    )


def _block(page: Page, label: str) -> tuple[int, int] | None:
    """Find the rows that a label heads: those that follow are set in."""
    found = re.search(rf"^{re.escape(label)}\b.*(?:\n[ ]+.*)*", page.text, re.MULTILINE)
    return found.span() if found else None


def _statistics(page: Page, start: int, end: int, held: list[Tensor]) -> None:
    values = torch.cat([each.double().reshape(-1) for each in held])
    mean, std = float(values.mean()), float(values.std(correction=0))
    low, high = float(values.min()), float(values.max())

    def is_end(text: str, end: float) -> bool:
        """Tell whether an end of the range is right: one that is marked is the sample's, and so within it."""
        return low - 1e-3 <= float(text[1:]) <= high + 1e-3 if text.startswith("~") else agrees(text, end)

    truths: dict[str, Callable[[str], Truth]] = {
        rf"norm ({MARKED})": lambda text: agrees(text, size(held)),
        rf"rms ({MARKED})": lambda text: agrees(text, size(held) / math.sqrt(len(values))),
        rf"mean ({MARKED})": lambda text: near(text, mean, std),
        rf"std ({MARKED})": lambda text: agrees(text, std),
        rf"({MARKED}) ~?▕": lambda text: is_end(text, low),
        rf"▏ ({MARKED})": lambda text: is_end(text, high),
        r"(?<![\w.×+-])(?<!norm )(?<!mean )(?<!std )(?<!rms )([+-]?\d+\.\d{4})(?![ ]~?▕)": lambda text: (
            any(agrees(text, value) for value in values.tolist()) if len(values) <= 16 else True
        ),
    }
    for pattern, truth in truths.items():
        for match in re.finditer(pattern, page.text[start:end]):
            page.claim(start + match.start(1), match[1], truth(match[1]))


def _unread(page: Page, facts: Facts) -> None:
    """Claim nothing."""


READERS: dict[str, Callable[[Page, Facts], None]] = {
    "StatusPanel": _status,
    "PhasesPanel": _phases,
    "ParametersPanel": _parameters,
    "TablePanel": _table,
    "LossPanel": _loss,
    "DataPanel": _data,
    "ScatterPanel": _fit,
    "OutputPanel": _output,
    "ExplanationPanel": _explanation,
    "BuffersPanel": _buffers,
    "SelectedPanel": _selected,
}
