"""The lines of a journal as a tree, and the branch on which training stands: the law for who writes and who reads."""

from __future__ import annotations

from array import array


class Tree:
    """Knows of each line from which one, and from which frame, it goes on; line 0 is frame 0.

    A line that runs something makes the present branch end with it; one that it leaves can be taken again. Finding
    the line of a frame takes logarithmic time: each line has a jump to one far before it.
    """

    def __init__(self) -> None:
        self.tip, self.end = 0, 0  # the last line of the present branch, and the frame it led to
        self.left: dict[int, int] = {}  # by the last line of a branch that was left, the frame it led to
        self._parents, self._starts = array("q", [0]), array("q", [-1])
        self._jumps, self._depths = array("q", [0]), array("q", [0])

    @property
    def last(self) -> int:
        """Give the newest line."""
        return len(self._parents) - 1

    def at(self, frame: int) -> int:
        """Give the line that led to a frame of the present branch, or past it."""
        line = self.tip if frame else 0
        while self._starts[line] >= frame > 0:
            jump = self._jumps[line]
            line = jump if self._starts[jump] >= frame else self._parents[line]
        return line

    def ran(self, start: int, end: int) -> None:
        """Add a line that runs from frame `start` of the present branch to another frame."""
        parent = self.at(start)
        if start < self.end:
            self.left[self.tip] = self.end
        self._add(parent, start)
        self.tip, self.end = self.last, end

    def went_back(self, frame: int) -> None:
        """Add a line that runs nothing: later frames stay until something runs from there."""
        self._add(self.at(frame), frame)

    def took(self, tip: int) -> None:
        """Add a line that returns to the end of a branch that was left, which ends with line `tip`."""
        end = self.left.pop(tip)
        self.left[self.tip] = self.end
        self._add(tip, end)
        self.tip, self.end = tip, end

    def _add(self, parent: int, start: int) -> None:
        far = self._jumps[parent]
        apart = self._depths[parent] - self._depths[far] == self._depths[far] - self._depths[self._jumps[far]]
        self._parents.append(parent)
        self._starts.append(start)
        self._jumps.append(self._jumps[far] if apart else parent)
        self._depths.append(self._depths[parent] + 1)
