"""aiokafka: every codec, every acks, idempotence, time lookup, seek."""

import asyncio
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

import exchange

DEADLINE_S = 60


async def create(bootstrap, name):
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        response = await admin.create_topics([NewTopic(name, exchange.PARTITIONS, 1)])
        assert all(error[1] == 0 for error in response.topic_errors), response
    finally:
        await admin.close()
    # With acks=0 a partition without a leader loses records without a word.
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=None)
    await consumer.start()
    partitions = [TopicPartition(name, index) for index in range(exchange.PARTITIONS)]
    assert set((await consumer.end_offsets(partitions)).values()) == {0}
    await consumer.stop()


async def produce(bootstrap, name, settings):
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=5, **settings)
    await producer.start()
    try:
        pending = [
            await producer.send(
                name,
                key=exchange.key(i),
                value=exchange.value(i),
                headers=exchange.headers(i),
                timestamp_ms=exchange.timestamp(i),
                partition=i % exchange.PARTITIONS,
            )
            for i in range(exchange.RECORDS)
        ]
        await asyncio.wait_for(producer.flush(), DEADLINE_S)
        await asyncio.wait_for(asyncio.gather(*pending), DEADLINE_S)
    finally:
        await producer.stop()


async def read(bootstrap, name, what):
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
    )
    await consumer.start()
    try:
        for index in range(exchange.PARTITIONS):
            partition = TopicPartition(name, index)
            want = exchange.expected(index)

            async def take(count):
                records = []
                while len(records) < count:
                    record = await asyncio.wait_for(consumer.getone(), DEADLINE_S)
                    content = (record.key, record.value, list(record.headers), record.timestamp)
                    records.append((record.offset, *content))
                return records

            consumer.assign([partition])
            consumer.seek(partition, 0)
            exchange.check(what, index, await take(len(want)))
            assert (await consumer.beginning_offsets([partition]))[partition] == 0
            assert (await consumer.end_offsets([partition]))[partition] == len(want)

            async def offset_at(timestamp):
                found = (await consumer.offsets_for_times({partition: timestamp}))[partition]
                return None if found is None else found.offset

            answers = {}
            numbers = list(range(index, exchange.RECORDS, exchange.PARTITIONS))
            for n in (0, 1, len(numbers) // 2, len(numbers) - 1):
                exact = exchange.timestamp(numbers[n])
                answers[exact] = await offset_at(exact)
                answers[exact - 1] = await offset_at(exact - 1)
            past = exchange.timestamp(exchange.RECORDS) + 1
            answers[past] = await offset_at(past)
            exchange.check_time_lookup(what, index, answers.__getitem__)
            middle = len(want) // 2
            consumer.seek(partition, middle)
            again = await take(5)
            assert again == want[middle : middle + 5], f"{what} [{index}]: seek to {middle}"
    finally:
        await consumer.stop()


async def main():
    bootstrap = sys.argv[1]
    runs = [(codec, "all", False) for codec in (None, "gzip", "snappy", "lz4", "zstd")]
    runs += [(None, 0, False), ("snappy", 1, False), (None, "all", True)]
    for codec, acks, idempotent in runs:
        what = f"aiokafka-{codec}-acks-{acks}-{'idempotent' if idempotent else 'plain'}"
        name = exchange.topic(what)
        await create(bootstrap, name)
        settings = {"compression_type": codec, "acks": acks, "enable_idempotence": idempotent}
        await produce(bootstrap, name, settings)
        await read(bootstrap, name, what)
        print("ok", what, flush=True)


asyncio.run(main())
