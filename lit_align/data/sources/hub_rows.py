"""Reading a data set of the Hugging Face hub row by row."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from lit_align.data.sources.rows import Row

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_BATCH = 1000


def is_hub_id(path: str) -> bool:
    """Whether a path that is not there may be the id of a data set: an owner and a name.

    Example:
        >>> is_hub_id("t-tech/T-Wix"), is_hub_id("data/chat.jsonl"), is_hub_id("./T-Wix")
        (True, False, False)
    """
    suffixes = (".json", ".jsonl", ".ndjson", ".parquet")
    return bool(_HUB_ID.fullmatch(path)) and not path.lower().endswith(suffixes)


def download_hub_file(name: str, file: str) -> str:
    """Download one file of a data set as it is, for data sets whose files do not fit one table.

    Args:
        name: The data set's id, such as ``next-tat/TAT-QA``.
        file: The file's name within it.

    Returns:
        Where the file lies in the cache.

    Raises:
        OSError: The hub cannot be reached, or has no such data set or file; the message says how to give a local file.
    """
    from huggingface_hub import hf_hub_download

    try:
        return hf_hub_download(name, file, repo_type="dataset")
    except OSError as error:  # the hub's own errors are OSErrors too
        raise OSError(
            f"{name}: its file {file} cannot be read from the Hugging Face hub ({error}); without the hub, download it "
            f"on another machine (`hf download {name} {file} --repo-type dataset --local-dir FOLDER`) and give the "
            "file as `path`"
        ) from error


def local_path(path: str, hub_file: str) -> str:
    """Where a file lies that is given as a path, or as a data set of the hub that holds it.

    Args:
        path: A file or a folder, or the id of a data set on the hub, one file of which is downloaded.
        hub_file: That file's name within it.

    Raises:
        OSError: See :func:`download_hub_file`.

    Example:
        >>> local_path("questions/mt_bench.jsonl", "raw/question.jsonl")
        'questions/mt_bench.jsonl'
    """
    on_disk = Path(path).expanduser()
    on_hub = is_hub_id(path) and not on_disk.exists() and not on_disk.parent.is_dir()
    return download_hub_file(path, hub_file) if on_hub else path


def hub_revision(name: str) -> str:
    """The commit that a data set of the hub is at; where the hub is out of reach, that of the copy in the cache.

    Args:
        name: The data set's id.

    Raises:
        OSError: The hub is out of reach, and there is no copy; or it has no such data set.
    """
    from huggingface_hub import hf_hub_download

    try:
        # A file that every repository has; it lies in a folder named for the commit.
        return Path(hf_hub_download(name, ".gitattributes", repo_type="dataset")).parent.name
    except OSError as error:  # the hub's own errors are OSErrors too
        raise OSError(
            f"{name}: its commit cannot be read from the Hugging Face hub ({error}), and prepared data are found by "
            "it; give a local file or folder as `path`, or set `data.cache: null`"
        ) from error


def read_hub_rows(name: str, split: str = "train") -> Iterator[Row]:
    """Read the rows of a data set, from the hub or from what an earlier run left in its cache.

    Args:
        name: The data set's id, such as ``t-tech/T-Wix``.
        split: Its split.

    Yields:
        The rows, in the data set's order.

    Raises:
        OSError: The hub cannot be reached or refuses the data set; the message says how to give a local file.
    """
    from datasets import load_dataset
    from huggingface_hub.errors import HfHubHTTPError

    try:
        table = load_dataset(name, split=split)
    except (OSError, HfHubHTTPError) as error:  # ConnectionError and DatasetNotFoundError are OSErrors
        raise OSError(
            f"{name}: cannot be read from the Hugging Face hub ({error}); without the hub, download its Parquet or "
            f"JSON files on another machine (`hf download {name} --repo-type dataset --local-dir FOLDER`) and give "
            "the file or the folder as `path`"
        ) from error
    number = 0
    for batch in table.iter(batch_size=_BATCH):
        columns = list(batch)
        for values in zip(*batch.values(), strict=True):
            number += 1
            yield Row(name, number, dict(zip(columns, values, strict=True)))
