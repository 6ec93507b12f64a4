#!/usr/bin/env python3
"""Reads a Delta table with an independent reader, at one or more versions, and writes what it saw as Parquet.

    read_table.py READER TABLE OUT VERSION...

READER is deltalake, polars or duckdb (Spark is in read_table_spark.py, as it lives in an environment of its own). TABLE is a
folder. The rows of version 7 go to OUT/READER-7.parquet, in no particular order; `latest` is a version too. The tests compare
these rows with their model, so nothing is aggregated here: a wrong row has a name in the test's message.
"""

import os
import sys
from pathlib import Path

# polars reads deletion vectors only when it is told to.
os.environ["POLARS_DELTA_READER_FEATURE_DV"] = "1"


def number(version):
    return None if version == "latest" else int(version)


def read_deltalake(table, version, out):
    import polars as pl
    from deltalake import DeltaTable, QueryBuilder

    # QueryBuilder is the one of deltalake's ways to read that knows deletion vectors; polars only writes its rows down.
    handle = DeltaTable(table, version=number(version))
    rows = QueryBuilder().register("t", handle).execute("select * from t")
    pl.DataFrame(rows.read_all()).write_parquet(out)


def read_polars(table, version, out):
    import polars as pl

    pl.scan_delta(table, version=number(version)).collect().write_parquet(out)


def read_duckdb(table, version, out):
    import duckdb
    import duckdb_extension_delta

    db = duckdb.connect(config={"allow_unsigned_extensions": "false"})
    db.execute(f"load '{extension_file(duckdb_extension_delta)}'")
    at = "" if version == "latest" else f", version => {int(version)}"
    db.execute("set timezone = 'UTC'")
    db.execute(f"copy (select * from delta_scan('{table}'{at})) to '{out}' (format parquet)")


def extension_file(package):
    """The extension lies in the wheel: nothing is downloaded."""
    found = sorted(Path(package.__file__).parent.rglob("delta.duckdb_extension*"))
    if not found:
        sys.exit("the package duckdb_extension_delta holds no extension file")
    return found[0]


READERS = {"deltalake": read_deltalake, "polars": read_polars, "duckdb": read_duckdb}


def main():
    if len(sys.argv) < 5 or sys.argv[1] not in READERS:
        sys.exit(__doc__)
    reader, table, out, *versions = sys.argv[1:]
    for version in versions:
        READERS[reader](table, version, f"{out}/{reader}-{version}.parquet")


if __name__ == "__main__":
    main()
