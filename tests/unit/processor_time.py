"""What a piece of code costs the processor, whatever else the machine and the other tests do."""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class ProcessorTime:
    """Seconds of this thread's processor time, set when the measured block ends."""

    seconds: float = 0.0


@contextmanager
def processor_time() -> Iterator[ProcessorTime]:
    """Measures its block, without garbage collection: that would walk what other tests left."""
    spent = ProcessorTime()
    gc.collect()
    gc.disable()
    started = time.thread_time()
    try:
        yield spent
    finally:
        spent.seconds = time.thread_time() - started
        gc.enable()
