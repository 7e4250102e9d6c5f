"""Celery as it comes: default settings, a task that does nothing.

``python -m bench.yardsticks.stock COUNT`` publishes and says how fast.
"""

import json
import os
import sys
import time

from celery import Celery

app = Celery("stock", broker=os.environ["REDIS_URL"])


@app.task
def nothing(name: str) -> None:
    """Take one argument, as a task that names an order would, and leave it."""
    del name


def main() -> None:
    """Publish with `delay`, one after the other."""
    count = int(sys.argv[1])
    nothing.delay("warm-up: connects")
    started, cpu = time.monotonic(), time.process_time()
    for number in range(count):
        nothing.delay(f"1/{number:036}")
    seconds = time.monotonic() - started
    print(json.dumps({"seconds": seconds, "cpu_seconds": time.process_time() - cpu}))


if __name__ == "__main__":
    main()
