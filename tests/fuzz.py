"""`make fuzz`: damaged files of every format, decoded alone, then sent through API and worker. Seeds make it repeatable."""

import logging
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests import damaged
from tests.contracts.api_fixtures import open_house
from tests.contracts.serving import sent


def main(count: int) -> None:
    """Print what became of `count` files; raise at the first that is neither restored nor refused."""
    logging.disable()  # a line for each failed job says nothing more than the sum
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    for seed in range(count):
        began = time.monotonic()
        try:
            outcomes[damaged.outcome(damaged.damaged(seed))] += 1
        except Exception:
            print(f"seed {seed} is neither restored nor refused:", file=sys.stderr)
            raise
        slowest = max(slowest, time.monotonic() - began)
    print(f"decoded: {dict(outcomes.most_common())}; the slowest took {slowest:.2f} s")
    with tempfile.TemporaryDirectory() as home, open_house(Path(home), max_pixels=damaged.MAX_PIXELS) as house:
        print(f"sent: {dict(sent(house, range(count)).most_common())}")
    print(f"all of it took {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
