"""kafka-python: every codec, every acks, idempotence, time lookup, seek."""

import sys

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

import exchange

DEADLINE_S = 60


def create(bootstrap, name):
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics([NewTopic(name, exchange.PARTITIONS, 1)], timeout_ms=30_000)
    admin.close()
    # With acks=0 a partition without a leader loses records without a word.
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=None)
    partitions = [TopicPartition(name, index) for index in range(exchange.PARTITIONS)]
    assert set(consumer.end_offsets(partitions).values()) == {0}
    consumer.close()


def produce(bootstrap, name, settings):
    producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=5, **settings)
    pending = [
        producer.send(
            name,
            key=exchange.key(i),
            value=exchange.value(i),
            headers=exchange.headers(i),
            timestamp_ms=exchange.timestamp(i),
            partition=i % exchange.PARTITIONS,
        )
        for i in range(exchange.RECORDS)
    ]
    producer.flush(DEADLINE_S)
    for future in pending:
        future.get(DEADLINE_S)
    producer.close()


def read(bootstrap, name, what):
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        consumer_timeout_ms=DEADLINE_S * 1000,
    )
    for index in range(exchange.PARTITIONS):
        partition = TopicPartition(name, index)
        want = exchange.expected(index)

        def take(count):
            records = []
            for record in consumer:
                content = (record.key, record.value, list(record.headers), record.timestamp)
                records.append((record.offset, *content))
                if len(records) == count:
                    break
            return records

        consumer.assign([partition])
        consumer.seek(partition, 0)
        exchange.check(what, index, take(len(want)))
        assert consumer.beginning_offsets([partition])[partition] == 0
        assert consumer.end_offsets([partition])[partition] == len(want)

        def offset_at(timestamp):
            found = consumer.offsets_for_times({partition: timestamp})[partition]
            return None if found is None else found.offset

        exchange.check_time_lookup(what, index, offset_at)
        middle = len(want) // 2
        consumer.seek(partition, middle)
        assert take(5) == want[middle : middle + 5], f"{what} [{index}]: seek to {middle}"
    consumer.close()


def main():
    bootstrap = sys.argv[1]
    runs = [(codec, "all", False) for codec in (None, "gzip", "snappy", "lz4", "zstd")]
    runs += [(None, 0, False), ("gzip", 1, False), (None, "all", True)]
    for codec, acks, idempotent in runs:
        what = f"kafka-python-{codec}-acks-{acks}-{'idempotent' if idempotent else 'plain'}"
        name = exchange.topic(what)
        create(bootstrap, name)
        settings = {"compression_type": codec, "acks": acks, "enable_idempotence": idempotent}
        produce(bootstrap, name, settings)
        read(bootstrap, name, what)
        print("ok", what, flush=True)


main()
