"""Reading Parquet files row by row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lit_align.data.sources.rows import Row

_BATCH = 1000  # rows held as Python objects at a time


def read_parquet_rows(file: Path) -> Iterator[Row]:
    """Read the rows of a Parquet file one by one.

    Args:
        file: The file.

    Yields:
        The rows, in the file's order.

    Raises:
        ValueError: The file is not Parquet, or is cut short.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file) as table:
            number = 0
            for batch in table.iter_batches(batch_size=_BATCH):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(str(file), number, values)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{file}: is no Parquet file, or one that was cut short: {error}") from error
