#!/usr/bin/env python3
"""Reads rows of a Delta table with Spark and Delta Lake, and writes what it saw as Parquet.

    read_table_spark.py JARS TABLE OUT QUESTION...

JARS is a folder with Delta Lake's jars. A QUESTION is one as read_table.py has them; the rows that answer the third of them go to the
folder OUT/spark-2.parquet, in no particular order.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pyspark.sql import SparkSession

from read_table import asked, cast, where

SETTINGS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    # Not the INT96 of old, which other readers see in nanoseconds.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.shuffle.partitions": "2",
    # Small tables: the default of 50 makes tasks that take longer to start than to run.
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
}


def escaped_cast(text, kind):
    # A backslash stands for itself in other SQL.
    return cast(text.replace("\\", "\\\\"), kind)


def main():
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    jars, table, out, *questions = sys.argv[1:]
    builder = SparkSession.builder.master("local[2]").appName("alluvium-readers")
    builder = builder.config("spark.jars", ",".join(str(jar) for jar in sorted(Path(jars).glob("*.jar"))))
    for name, value in SETTINGS.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")

    def answer(place, question):
        version, time, condition = asked(question)
        reader = spark.read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", version)
        if time:
            reader = reader.option("timestampAsOf", time.isoformat())
        rows = reader.load(table).where(where(condition, {}, escaped_cast))
        # One file: most answers are a few rows.
        rows.coalesce(1).write.mode("overwrite").parquet(f"{out}/spark-{place}.parquet")

    # Two at a time: a small question is mostly waiting.
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(answer, range(len(questions)), questions))
    spark.stop()


if __name__ == "__main__":
    main()
