"""Only one process writes a file; a killed one leaves no lock behind."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_FAR = 1 << 30  # Windows locks bytes, and none of a lock's own file is ever there


@contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Keep other processes from writing a file, inside the block.

    The lock is the operating system's, on a file ``.NAME.lock`` beside it: it ends with the process, however that ends.

    Args:
        path: The file that is to be written; its folder is made.

    Raises:
        BlockingIOError: Another process writes it.
        OSError: The folder cannot be written.
    """
    lock = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _locked(lock)
    except BlockingIOError:
        raise
    except OSError as error:
        raise OSError(error.errno, f"{path} cannot be written ({error.strerror}: {error.filename})") from error
    try:
        yield
    finally:
        if sys.platform == "win32":  # where an open file cannot be removed
            file.close()
            with suppress(PermissionError):  # the next process has it open already
                lock.unlink(missing_ok=True)
        else:
            lock.unlink(missing_ok=True)
            file.close()


def _locked(lock: Path) -> BinaryIO:
    while True:
        file = lock.open("ab")
        try:
            _lock(file)
            # The process before may have removed it between our opening and our locking.
            if os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                return file
        except FileNotFoundError:
            file.close()
        except (BlockingIOError, PermissionError) as error:  # the second is Windows' word for it
            file.close()
            written = lock.with_name(lock.name.removeprefix(".").removesuffix(".lock"))
            raise BlockingIOError(
                error.errno, f"another process is writing {written}: wait for it, or name another `out`"
            ) from error
        else:
            file.close()


def _lock(file: BinaryIO) -> None:
    if sys.platform == "win32":
        import msvcrt

        file.seek(_FAR)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
