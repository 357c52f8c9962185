"""Files are whole or absent, and a machine's trouble names the file it is about."""

import errno
import os
import threading
from pathlib import Path

import pytest

from sparse_transfer.core.errors import UserError
from sparse_transfer.core.files import atomic_write, locked, named
from support.faults import at_call


def test_an_error_of_any_system_call_names_the_file_and_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    with at_call(-1, lambda: None) as made, atomic_write(path) as file:
        file.write(b"old")
    assert {"mkdir", "open", "fsync", "replace"} <= set(made)

    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write() -> None:
        with atomic_write(path) as file:
            file.write(b"new")

    for number, name in enumerate(made):
        path.write_bytes(b"old")
        with at_call(number, full):
            if name == "mkdir":  # the folder is there already
                write()
                continue
            with pytest.raises(OSError, match="No space left on device") as caught:
                write()
        assert caught.value.filename == str(path), name
        assert path.read_bytes() in (b"old", b"new")
        assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_under_the_writer_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left on device") as caught, atomic_write(tmp_path / "file"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_an_error_that_names_its_own_file_keeps_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, named(tmp_path / "one"):
        (tmp_path / "other").read_bytes()
    assert caught.value.filename == str(tmp_path / "other")


def test_a_temporary_file_is_called_by_the_name_it_is_to_have(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 250)  # with the temporary's longer name: too long for a file
    with pytest.raises(OSError, match="File name too long") as caught, atomic_write(folder):
        pass
    assert caught.value.filename == str(folder)


def test_who_comes_second_says_so_and_waits_or_leaves(tmp_path: Path) -> None:
    path, order, entered = tmp_path / "a.lock", list[str](), threading.Event()

    def second() -> None:
        with locked(path, lambda: (order.append("taken"), entered.set())):
            order.append("second")

    def leave() -> None:
        raise UserError("another process works on it")

    thread = threading.Thread(target=second)
    with locked(path, lambda: order.append("never")):
        with pytest.raises(UserError, match="works on it"), locked(path, leave):
            pass
        thread.start()
        assert entered.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["taken", "first", "second"]
    with locked(path, leave):  # free again
        pass


def test_a_lock_that_cannot_be_made_names_its_file(tmp_path: Path) -> None:
    path = tmp_path / "absent" / "a.lock"
    path.parent.touch()
    with pytest.raises(OSError, match=r"Not a directory|File exists") as caught, locked(path, lambda: None):
        pass
    assert str(path) in str(caught.value) or str(path.parent) in str(caught.value)
