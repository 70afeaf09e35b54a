"""What a member of a group says: what it owns and what it reads, a line each, tabs between fields.

    assigned PARTITION,PARTITION...
    record PARTITION OFFSET TIMESTAMP KEY VALUE NAME=VALUE,NAME=VALUE...

The lines of a batch are flushed before the member commits it. The end of standard input makes the
member leave.
"""

import sys
import threading


def until_input_ends():
    """An event that is set once standard input is at its end."""
    ended = threading.Event()

    def wait():
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    return ended


def assigned(partitions):
    print("assigned", ",".join(str(partition) for partition in sorted(partitions)), sep="\t")
    sys.stdout.flush()


def record(partition, offset, timestamp, key, value, headers):
    listed = ",".join(f"{name}={content.decode()}" for name, content in headers)
    print("record", partition, offset, timestamp, key.decode(), value.decode(), listed, sep="\t")


def flush():
    sys.stdout.flush()


def scene(scenes):
    """Runs the scene that the command line names: scenes maps names to functions."""
    scenes[sys.argv[1]](*sys.argv[2:])
