"""aiokafka: every codec, every acks, idempotence, groups, administration."""

import asyncio

from aiokafka import (
    AIOKafkaConsumer,
    AIOKafkaProducer,
    ConsumerRebalanceListener,
    TopicPartition,
)
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

import exchange
import member

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


async def run_exchange(bootstrap):
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


class Account(ConsumerRebalanceListener):
    """Tells what the member owns: all of it comes with every rebalance."""

    async def on_partitions_revoked(self, revoked):
        member.assigned([])

    async def on_partitions_assigned(self, assigned):
        member.assigned([partition.partition for partition in assigned])


async def run_member(bootstrap, group, topic, strategy, versions):
    assert versions == "new", "this library always speaks what the broker offers"
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=10000,
        heartbeat_interval_ms=500,
        partition_assignment_strategy=(
            RangePartitionAssignor if strategy == "range" else StickyPartitionAssignor,
        ),
    )
    consumer.subscribe([topic], listener=Account())
    await consumer.start()
    ended = member.until_input_ends()
    while not ended.is_set():
        polled = await consumer.getmany(timeout_ms=100)
        for partition, records in polled.items():
            for record in records:
                content = (record.key, record.value, record.headers)
                member.record(partition.partition, record.offset, record.timestamp, *content)
        if polled:
            member.flush()
            await consumer.commit()
    await consumer.stop()


async def await_retention(admin, topic, expected):
    """Reads retention.ms until it is as expected: a broker may answer a change before it shows."""
    asked = ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": None})

    async def read():
        while True:
            (answer,) = await admin.describe_configs([asked])
            # Error code, message, type and name come before the entries.
            ((error, _, _, _, ((_, value, *_),)),) = answer.resources
            assert error == 0, answer
            if value == expected:
                return
            await asyncio.sleep(0.02)

    await asyncio.wait_for(read(), DEADLINE_S)


async def run_describe(bootstrap, group, topic):
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    listed = await admin.list_consumer_groups()
    assert (group, "consumer") in listed, listed
    print("ok list groups")

    (answer,) = await admin.describe_consumer_groups([group])
    (described,) = answer.groups
    assert described[:4] == (0, group, "Stable", "consumer"), described
    assert len(described[5]) == 2, described
    print("ok describe group")

    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=None)
    await consumer.start()
    (answer,) = await admin.describe_topics([topic])
    partitions = [TopicPartition(topic, index) for index in range(len(answer["partitions"]))]
    ends = await consumer.end_offsets(partitions)
    await consumer.stop()
    committed = await admin.list_consumer_group_offsets(group)
    assert {partition: at.offset for partition, at in committed.items()} == ends, committed
    print("ok committed offsets")

    await await_retention(admin, topic, "604800000")
    for changes, then in (({"retention.ms": "7200000"}, "7200000"), ({}, "604800000")):
        # This library knows the older call only, which replaces the whole configuration.
        change = ConfigResource(ConfigResourceType.TOPIC, topic, changes)
        (answer,) = await admin.alter_configs([change])
        assert answer.resources[0][0] == 0, answer
        await await_retention(admin, topic, then)
    print("ok configs")
    await admin.close()


async def run_delete(bootstrap, _, topic):
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    answer = await admin.delete_topics([topic])
    assert list(answer.topic_error_codes) == [(topic, 0)], answer
    assert topic not in await admin.list_topics()
    print("ok delete topic")
    await admin.close()


def blocking(scene):
    return lambda *arguments: asyncio.run(scene(*arguments))


member.scene(
    {
        "exchange": blocking(run_exchange),
        "member": blocking(run_member),
        "describe": blocking(run_describe),
        "delete": blocking(run_delete),
    }
)
