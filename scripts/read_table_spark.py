#!/usr/bin/env python3
"""Reads a Delta table with Spark and Delta Lake, at one or more versions, and writes what it saw as Parquet.

    read_table_spark.py JARS TABLE OUT VERSION...

JARS is a folder with Delta Lake's jars. The rows of version 7 go to the folder OUT/spark-7.parquet, in no particular order; `latest`
is a version too. Like read_table.py, it aggregates nothing.
"""

import sys
from pathlib import Path

from pyspark.sql import SparkSession

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


def main():
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    jars, table, out, *versions = sys.argv[1:]
    builder = SparkSession.builder.master("local[2]").appName("alluvium-readers")
    builder = builder.config("spark.jars", ",".join(str(jar) for jar in sorted(Path(jars).glob("*.jar"))))
    for name, value in SETTINGS.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    for version in versions:
        reader = spark.read.format("delta")
        if version != "latest":
            reader = reader.option("versionAsOf", int(version))
        reader.load(table).write.mode("overwrite").parquet(f"{out}/spark-{version}.parquet")
    spark.stop()


if __name__ == "__main__":
    main()
