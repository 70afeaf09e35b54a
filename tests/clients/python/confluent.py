"""confluent-kafka (librdkafka): every codec, every acks, idempotence, time lookup, seek."""

import sys
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

import exchange

DEADLINE_S = 60


def create(bootstrap, name):
    admin = AdminClient({"bootstrap.servers": bootstrap})
    new = NewTopic(name, num_partitions=exchange.PARTITIONS, replication_factor=1)
    admin.create_topics([new], operation_timeout=30)[name].result(DEADLINE_S)
    await_leaders(bootstrap, name)


def await_leaders(bootstrap, name):
    """With acks=0 a partition without a leader loses records without a word."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused"})
    deadline = time.time() + DEADLINE_S
    for partition in range(exchange.PARTITIONS):
        while True:
            try:
                ends = consumer.get_watermark_offsets(TopicPartition(name, partition), DEADLINE_S)
                break
            except KafkaException as failure:
                electing = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.OFFSET_NOT_AVAILABLE)
                if failure.args[0].code() not in electing or time.time() > deadline:
                    raise
                time.sleep(0.05)
        assert ends == (0, 0), ends
    consumer.close()


def produce(bootstrap, name, settings):
    failures = []
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, **settings})
    for i in range(exchange.RECORDS):
        producer.produce(
            name,
            key=exchange.key(i),
            value=exchange.value(i),
            headers=exchange.headers(i),
            timestamp=exchange.timestamp(i),
            partition=i % exchange.PARTITIONS,
            on_delivery=lambda error, _: failures.append(error) if error else None,
        )
    left = producer.flush(DEADLINE_S)
    assert left == 0 and not failures, f"{settings}: {left} unsent, {failures[:1]}"


def consume(consumer, name, partition, start, count):
    consumer.assign([TopicPartition(name, partition, start)])
    records = []
    while len(records) < count:
        message = consumer.poll(DEADLINE_S)
        assert message is not None, f"{name} [{partition}]: {len(records)} records, then nothing"
        assert message.error() is None, message.error()
        records.append(
            (
                message.offset(),
                message.key(),
                message.value(),
                message.headers(),
                message.timestamp()[1],
            )
        )
    return records


def read(bootstrap, name, what):
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "unused",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "check.crcs": True,
            # Requests of one connection wait for each other, and a Fetch waits this long.
            "fetch.wait.max.ms": 10,
        }
    )
    for partition in range(exchange.PARTITIONS):
        want = exchange.expected(partition)
        exchange.check(what, partition, consume(consumer, name, partition, 0, len(want)))
        low, high = consumer.get_watermark_offsets(TopicPartition(name, partition), 30)
        assert (low, high) == (0, len(want)), (low, high)

        def offset_at(timestamp):
            asked = [TopicPartition(name, partition, timestamp)]
            (found,) = consumer.offsets_for_times(asked, timeout=30)
            assert found.error is None, found.error
            # The end of the partition is this client's way to say "nothing".
            return found.offset if 0 <= found.offset < len(want) else None

        exchange.check_time_lookup(what, partition, offset_at)
        middle = len(want) // 2
        again = consume(consumer, name, partition, middle, 5)
        assert again == want[middle : middle + 5], f"{what} [{partition}]: seek to {middle}"
    consumer.close()


def main():
    bootstrap = sys.argv[1]
    runs = [(codec, "all", False) for codec in ("none", "gzip", "snappy", "lz4", "zstd")]
    runs += [("none", "0", False), ("lz4", "1", False), ("none", "all", True), ("zstd", "all", True)]
    for codec, acks, idempotent in runs:
        what = f"confluent-{codec}-acks-{acks}-{'idempotent' if idempotent else 'plain'}"
        name = exchange.topic(what)
        create(bootstrap, name)
        settings = {"compression.type": codec, "acks": acks, "enable.idempotence": idempotent}
        produce(bootstrap, name, settings)
        read(bootstrap, name, what)
        print("ok", what, flush=True)


main()
