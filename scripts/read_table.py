#!/usr/bin/env python3
"""Reads rows of a Delta table with an independent reader, and writes what it saw as Parquet.

    read_table.py READER TABLE OUT QUESTION...

READER is deltalake, polars or duckdb (Spark is in read_table_spark.py, as it lives in an environment of its own). TABLE is a
folder. A QUESTION is one of

    7                           the rows of version 7
    2026-11-23T10:00:00.123Z    the rows of the version that was the newest at this time
    {"column": "n", "kind": "bigint", "is": ">=", "value": "7"}
                                the newest rows of which a column compares so; without a value, "is" is "null" or "not null"

The rows that answer the third of them go to OUT/READER-2.parquet, in no particular order. The tests compare these rows with their
model, so nothing is aggregated here: a wrong row has a name in the test's message.
"""

import json
import sys
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path


def asked(text):
    """The version, the time or the condition of a question; two of the three are None."""
    if text.startswith("{"):
        return None, None, json.loads(text)
    if "T" in text:
        return None, datetime.fromisoformat(text.replace("Z", "+00:00")), None
    return int(text), None, None


def cast(text, kind):
    return f"cast({text} as {kind})"


def where(condition, kinds, cast=cast):
    """A condition in SQL. `kinds`: how the reader's SQL calls a type, where it has a name of its own."""
    if condition is None:
        return "true"
    column, how, value = condition["column"], condition["is"], condition.get("value")
    if value is None:
        return f"{column} is {how}"
    kind, text = condition["kind"], "'" + value.replace("'", "''") + "'"
    return f"{column} {how} {cast(text, kinds.get(kind, kind))}"


# Arrow's own types: a TIMESTAMP of deltalake's SQL is of nanoseconds, which do not reach far.
ARROW = {
    "bigint": "Int64",
    "float": "Float32",
    "double": "Float64",
    "string": "Utf8",
    "date": "Date32",
    "timestamp": 'Timestamp(Microsecond, Some("UTC"))',
    "timestamp_ntz": "Timestamp(Microsecond, None)",
    "decimal(38,10)": "Decimal128(38, 10)",
}


def arrow_cast(text, kind):
    return f"arrow_cast({text}, '{kind}')"


def read_deltalake(table, question, out):
    import polars as pl
    from deltalake import DeltaTable, QueryBuilder

    version, time, condition = asked(question)
    handle = DeltaTable(table, version=version)
    if time:
        handle.load_as_version(time)
    # QueryBuilder is the one of deltalake's ways to read that knows deletion vectors; polars only writes its rows down.
    rows = QueryBuilder().register("t", handle).execute(f"select * from t where {where(condition, ARROW, arrow_cast)}")
    pl.DataFrame(rows.read_all()).write_parquet(out)


def read_polars(table, question, out):
    import polars as pl

    version, time, condition = asked(question)
    rows = pl.scan_delta(table, version=time or version)
    if condition:
        rows = rows.filter(polars_condition(condition))
    rows.collect().write_parquet(out)


def polars_condition(condition):
    import polars as pl

    name, *fields = condition["column"].split(".")
    column = pl.col(name)
    for field in fields:
        column = column.struct.field(field)
    how, kind, value = condition["is"], condition["kind"], condition.get("value")
    if value is None:
        return column.is_null() if how == "null" else column.is_not_null()
    of = {"bigint": int, "float": float, "double": float, "date": date.fromisoformat, "string": str}
    of |= {"timestamp": datetime.fromisoformat, "timestamp_ntz": datetime.fromisoformat, "decimal(38,10)": Decimal}
    of_float = {"dtype": pl.Float32} if kind == "float" else {}
    literal = pl.lit(of[kind](value), **of_float)
    return {"=": column.eq, ">=": column.ge, "<=": column.le}[how](literal)


def read_duckdb(table, question, out):
    version, time, condition = asked(question)
    if time:
        sys.exit("DuckDB does not travel by time")
    at = "" if version is None else f", version => {version}"
    kinds = {"timestamp": "timestamptz", "timestamp_ntz": "timestamp"}
    rows = f"select * from delta_scan('{table}'{at}) where {where(condition, kinds)}"
    duckdb().execute(f"copy ({rows}) to '{out}' (format parquet)")


@cache
def duckdb():
    """Once for all questions: the extension takes longer to load than a table to read."""
    import duckdb
    import duckdb_extension_delta

    db = duckdb.connect(config={"allow_unsigned_extensions": "false"})
    db.execute(f"load '{extension_file(duckdb_extension_delta)}'")
    db.execute("set timezone = 'UTC'")
    return db


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
    reader, table, out, *questions = sys.argv[1:]
    for place, question in enumerate(questions):
        READERS[reader](table, question, f"{out}/{reader}-{place}.parquet")


if __name__ == "__main__":
    main()
