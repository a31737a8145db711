"""Reading a data set of the Hugging Face hub row by row."""

from __future__ import annotations

import re
from collections.abc import Iterator

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
