#!/usr/bin/env python3
"""Watches a Delta table and says when it sees a new version, and which source positions that holds.

    watch_table.py TABLE APP_ID...

One line of JSON for each version seen: {"seen_us": …, "version": …, "marks": {"0": …}}, the marks by partition, out of the `txn` actions
of these application ids (alluvium/PIPELINE/TOPIC/PARTITION@TOPIC_ID).
"""

import json
import sys
import time

from deltalake import DeltaTable

# Often enough that the watching itself adds next to nothing.
PAUSE_S = 0.002


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    table = DeltaTable(sys.argv[1])
    app_ids = {app_id.split("@")[0].rsplit("/", 1)[1]: app_id for app_id in sys.argv[2:]}
    seen = None
    while True:
        if table.version() != seen:
            seen = table.version()
            now_us = time.time_ns() // 1000
            marks = {partition: table.transaction_version(app_id) for partition, app_id in app_ids.items()}
            print(json.dumps({"seen_us": now_us, "version": seen, "marks": marks}), flush=True)
        else:
            time.sleep(PAUSE_S)
        table.update_incremental()


if __name__ == "__main__":
    main()
