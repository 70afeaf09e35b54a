"""What every Python client sends and must get back, whatever its library.

Record i of a run has a key, a value, a header and a timestamp made from i, and goes to partition
i % PARTITIONS. So each partition holds an arithmetic series of i, in order, and offset n of
partition p holds record n * PARTITIONS + p: dense offsets and order are one comparison.
"""

import time
import uuid

PARTITIONS = 3
RECORDS = 300
START_MS = int(time.time() * 1000) - 3_600_000
STEP_MS = 1_000


def topic(prefix):
    return f"{prefix}-{uuid.uuid4().hex}"


def key(i):
    return f"key-{i}".encode()


def value(i):
    # Of many lengths, some of them worth compressing; every 50th is empty.
    return b"" if i % 50 == 49 else f"value-{i}-".encode() + b"x" * (i * 7 % 500)


def headers(i):
    # The same name twice: headers are a list, not a map.
    return [("number", str(i).encode()), ("number", b"again")]


def timestamp(i):
    return START_MS + i * STEP_MS


def expected(partition):
    """(offset, key, value, headers, timestamp) of one partition, in order."""
    numbers = range(partition, RECORDS, PARTITIONS)
    return [(n, key(i), value(i), headers(i), timestamp(i)) for n, i in enumerate(numbers)]


def check(what, partition, got):
    want = expected(partition)
    assert len(got) == len(want), f"{what} [{partition}]: {len(got)} records, expected {len(want)}"
    for have, wish in zip(got, want):
        assert have == wish, f"{what} [{partition}]: {have} is not {wish}"


def check_time_lookup(what, partition, offset_at):
    """offset_at(timestamp) gives the first offset at or after it, or None past the end."""
    numbers = list(range(partition, RECORDS, PARTITIONS))
    for n in (0, 1, len(numbers) // 2, len(numbers) - 1):
        exact = timestamp(numbers[n])
        assert offset_at(exact) == n, f"{what} [{partition}]: {offset_at(exact)} is not {n}"
        assert offset_at(exact - 1) == n, f"{what} [{partition}]: one ms before {n}"
    past = offset_at(timestamp(RECORDS) + 1)
    assert past is None, f"{what} [{partition}]: {past} past the end"


def await_equal(what, read, expected):
    """Reads until it is as expected: a broker may answer a change before it shows."""
    deadline = time.time() + 30
    while (got := read()) != expected:
        assert time.time() < deadline, f"{what} is {got}, not {expected}"
        time.sleep(0.02)
