"""Prepared data kept for later runs: found by what they are made of, whole or not there."""

from __future__ import annotations

import errno
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import mkdtemp

from lit_align.data.lengths import Lengths
from lit_align.data.part import Workshop
from lit_align.data.prepared.prepared import Prepared, read_prepared

logger = logging.getLogger(__name__)

_SECONDS_UNSAID = 2.0


class PreparedCache:
    """Prepared data in folders by their keys.

    A folder is written under a temporary name and renamed when it is whole, by one process at a time: another one that
    needs the same data waits for it, also of a run of its own. The lock is the operating system's and ends with the
    process that holds it, however that ends.

    Args:
        folder: Where they lie; made when something is kept.
        key: Name of these data, a hash of all that decides them.
        made_by: What makes them, by name, with its version; data of other versions are made again.
        lengths: Token limits of an example, for the report.
    """

    def __init__(self, folder: Path, key: str, made_by: Mapping[str, str], lengths: Lengths) -> None:
        self._folder, self._entry = folder, folder / key
        self._made_by, self._lengths = made_by, lengths

    def get(self, prepare: Callable[[Workshop], Prepared], processes: int | None) -> Prepared:
        """The data, from their folder or prepared into it.

        Args:
            prepare: Prepares them.
            processes: See :class:`~lit_align.data.part.Workshop`.

        Raises:
            ValueError: As ``prepare``.
            OSError: The disk is full, or the folder cannot be written; nothing of it is left.
        """
        found, _ = self._found()
        if found is None:
            with self._alone():
                found, why = self._found()
                if found is None:  # and no other process has made them meanwhile
                    if why:
                        logger.warning(f"prepared data {self._entry} are not used: {why}; they are prepared again")
                    self._make(prepare, processes)
                    return read_prepared(self._entry, self._made_by, self._lengths)
        logger.info(f"prepared data of {self._entry}")
        for report in found.reports.values():
            report.repeat()
        return found

    def _found(self) -> tuple[Prepared | None, str]:
        """What lies there, or why it cannot be used; neither where nothing does."""
        if not self._entry.is_dir():
            return None, ""
        try:
            return read_prepared(self._entry, self._made_by, self._lengths), ""
        except ValueError as error:
            return None, str(error)

    def _make(self, prepare: Callable[[Workshop], Prepared], processes: int | None) -> None:
        for left in self._folder.glob(f"{self._entry.name}.part-*"):  # of a process that was killed, for we are alone
            shutil.rmtree(left)
        temporary = Path(mkdtemp(dir=self._folder, prefix=f"{self._entry.name}.part-"))
        try:
            with _explained(self._folder):
                with closing(Workshop(temporary, processes)) as workshop:
                    prepare(workshop).write(temporary, self._made_by)
                if self._entry.exists():
                    shutil.rmtree(self._entry)
                temporary.replace(self._entry)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)  # renamed by now, unless something went wrong

    @contextmanager
    def _alone(self) -> Iterator[None]:
        from filelock import FileLock, Timeout

        with _explained(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._folder / f"{self._entry.name}.lock")
            try:
                lock.acquire(timeout=_SECONDS_UNSAID)
            except Timeout:
                logger.info(f"waiting for another process, which prepares {self._entry}")
                lock.acquire()
        try:
            yield
        finally:
            lock.release()


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        raise OSError(
            error.errno,
            f"the prepared data could not be written to {folder} ({error.strerror}); nothing was left there: free "
            "space, or name another folder (`data.cache`)",
        ) from error
