"""The folder where a screen and the processes of its script meet: a socket, and a byte that asks for a pause."""

from __future__ import annotations

import mmap
import os
import shutil
import socket
import tempfile
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from autograd_tui.core.files import is_locked, new_file, open_file, try_lock
from autograd_tui.engine.script.agent_messages import PAUSE_BYTES, PAUSE_NAME, SOCKET_NAME

FOLDER_PREFIX, FOLDER_FILES = "autograd-tui-", {SOCKET_NAME, PAUSE_NAME}
MAX_PATH_BYTES = 90  # of a folder for a unix socket: systems take about 100 for the socket's own


class SocketFolder:
    """The screen's side of the folder, which is removed when it is closed."""

    def __init__(self, path: Path | None = None) -> None:
        """`path`: of a folder that there is, by default a new one that no other user can enter."""
        self.path = path or _private_folder()
        self._pause_byte = _new_pause_byte(self.path / PAUSE_NAME)
        self.listening = _listen(self.path)

    def pause(self, wanted: bool) -> None:
        """Have the script held at its next event, or no longer."""
        self._pause_byte[:] = b"\1" if wanted else b"\0"

    def accept(self) -> Connection:
        """Return the connection of a process that attaches."""
        attached, _ = self.listening.accept()
        return Connection(attached.detach())

    def close(self) -> None:
        """Listen no more, and remove the folder."""
        self.listening.close()
        shutil.rmtree(self.path, ignore_errors=True)


def _private_folder() -> Path:
    """Make a folder for the socket that no other user can enter, with a path that a socket's may have."""
    folder = tempfile.mkdtemp(prefix=FOLDER_PREFIX)
    if len(os.fsencode(folder)) > MAX_PATH_BYTES:
        os.rmdir(folder)
        folder = tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir="/tmp")
    _remove_left_folders(Path(folder).parent)
    return Path(folder)


def _remove_left_folders(place: Path) -> None:
    """Remove the folders of this user's screens that were killed: each has claimed its pause byte while it lived."""
    for folder in place.glob(f"{FOLDER_PREFIX}*"):
        with suppress(OSError):
            is_ours = folder.stat().st_uid == os.getuid() and {each.name for each in folder.iterdir()} == FOLDER_FILES
            if is_ours and not is_locked(folder / PAUSE_NAME):
                shutil.rmtree(folder, ignore_errors=True)


def _new_pause_byte(path: Path) -> mmap.mmap:
    """Make the file of the byte that the script looks at, claim it, and share it."""
    made = new_file(path, 0o600)
    os.write(made, b"\0" * PAUSE_BYTES)
    os.close(made)
    descriptor = open_file(path, os.O_RDWR)
    try:
        try_lock(descriptor)  # the map keeps the file open, and so the claim
        return mmap.mmap(descriptor, PAUSE_BYTES)
    finally:
        os.close(descriptor)


def _listen(folder: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(folder / SOCKET_NAME))
    listening.listen()
    return listening
