from __future__ import annotations

import pytest

from app_screen import Screen, screen
from autograd_tui.tui.panels.loss import LossPanel


def plot(shown: Screen) -> LossPanel:
    return shown.app.main.query_one(LossPanel)


async def typed(shown: Screen, words: str) -> None:
    await shown.press(":", *("space" if each == " " else each for each in words), "enter")


async def test_a_cursor_reads_the_values_of_the_plot_and_leaves_with_escape() -> None:
    async with screen(do="fbsz*9") as shown:
        losses = shown.session.history.loss.values
        await shown.press("shift+left", "shift+left")
        assert shown.app.main.view.plot.cursor == 7
        assert shown.text("LossPanel").splitlines()[0] == f"iteration 7   loss {losses[6]:.4f}"
        await shown.press("shift+right")
        assert f"loss {losses[7]:.4f}" in shown.text("LossPanel")
        await shown.press("9", "shift+left")
        assert "iteration 1 " in shown.text("LossPanel")
        assert "┊" in shown.text("LossPanel")
        await shown.press("escape")
        assert shown.app.main.view.plot.cursor is None
        assert "old" in shown.text("LossPanel").splitlines()[0]


async def test_enter_shows_the_frame_that_the_cursor_is_at() -> None:
    async with screen(do="fbsz*9") as shown:
        await shown.press("4", "shift+left", "enter")
        assert shown.app.main.view.frame is not None
        assert shown.app.main.view.frame.index == 4 * 4 + 1
        assert shown.session.frame.index == 36


async def test_the_plot_is_zoomed_around_the_cursor_and_back() -> None:
    async with screen(do="fbsz*40") as shown:
        await shown.press("2", "0", "shift+left", "shift+up")
        view = shown.app.main.view.plot
        assert view.first is not None
        assert view.last is not None
        assert view.first <= 20 <= view.last
        assert view.last - view.first == 19
        assert f"from {view.first} to {view.last}" in str(plot(shown).border_title)
        await shown.press("shift+down")
        assert (shown.app.main.view.plot.first, shown.app.main.view.plot.last) == (None, None)


async def test_words_zoom_and_smooth_the_plot() -> None:
    async with screen(do="fbsz*40") as shown:
        await typed(shown, "plot 10-20 smooth 0.9")
        assert "smooth 0.9   from 10 to 20" in str(plot(shown).border_title)
        axis = shown.text("LossPanel").splitlines()[-1]
        assert "└10" in axis
        await typed(shown, "plot all smooth off")
        assert "└1─" in shown.text("LossPanel").splitlines()[-1]


async def test_several_curves_stand_over_each_other_where_they_are_of_different_kinds() -> None:
    async with screen(do="fbsz*9", size=(120, 60)) as shown:
        grads = shown.session.history.grads.sizes([0])
        await typed(shown, "plot w.grad b.grad lr")
        first = shown.text("LossPanel").splitlines()[0]
        assert first.startswith(f"a w.grad {grads[-1]:.4f}")
        assert "c lr 0.1" in first
        assert "Plot of w.grad, b.grad, lr" in str(plot(shown).border_title)
        assert shown.text("LossPanel").count("└") in (0, 2)


async def test_on_a_log_scale_a_gradient_is_plotted_without_its_sign() -> None:
    async with screen(do="fbsz*9") as shown:
        assert min(shown.session.history.grads.sizes([0])) < 0
        await typed(shown, "plot w.grad")
        assert "Plot of w.grad" in str(plot(shown).border_title)
        await typed(shown, "log")
        assert "Plot of |w.grad|" in str(plot(shown).border_title)
        assert "!" not in shown.text("LossPanel")


async def test_a_run_that_was_left_stays_on_the_plot_with_its_learning_rate() -> None:
    async with screen(do="lr=0.19 fbsz*9 @1 lr=0.1 fbsz*9") as shown:
        assert "lr 0.19" in shown.text("LossPanel")


async def test_a_run_that_was_undone_and_done_again_is_not_drawn_twice() -> None:
    async with screen(do="fbsz*9 @4 fbsz*9") as shown:
        assert "branch" not in shown.text("LossPanel")


async def test_where_there_is_no_plot_its_keys_say_so() -> None:
    async with screen(size=(60, 15)) as shown:
        for key in ("shift+left", "shift+up"):
            await shown.press(key)
            assert shown.note == "there is no room for the plot here"
        await shown.pilot.resize_terminal(80, 24)
        await shown.until(lambda: shown.note == "")


async def test_another_model_has_no_curves_of_the_one_before() -> None:
    async with screen(do="fbsz*2") as shown:
        await typed(shown, "plot w.grad lr")
        await typed(shown, "model spiral")
        main = shown.app.main
        await shown.until(lambda: main.view.about is not None and "spiral" in main.view.about.title)
        assert main.view.plot.names == ("lr",)


async def test_a_veil_covers_the_newest_gradient_on_the_plot() -> None:
    async with screen(do="fbsz*3") as shown:
        await typed(shown, "plot w.grad")
        await shown.press("v")
        while len(shown.session.history.grads) < 4:
            await shown.press("space")
        *_, before, newest = shown.session.history.grads.sizes([0])
        assert shown.app.main.view.hidden is not None
        assert shown.text("LossPanel").startswith(f"w.grad {before:.4f}")
        await shown.press("space")
        assert shown.text("LossPanel").startswith(f"w.grad {newest:.4f}")


async def test_a_free_run_says_of_how_many_iterations_it_has_gradients() -> None:
    async with screen() as shown:
        await shown.press(*"4000", "n")
        await shown.until(lambda: shown.session.frame.iteration >= 3999)
        await typed(shown, "plot grad w.grad")
        assert "of 4 000 iterations" in str(plot(shown).border_title)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_a_plot_that_is_alone_uses_all_of_its_rows(size: tuple[int, int]) -> None:
    async with screen(do="fbsz*30", size=size) as shown:
        shown.app.main.zoom(plot(shown))
        await shown.press("y")
        rows = shown.text("LossPanel").splitlines()
        assert len(rows) >= size[1] - 10
