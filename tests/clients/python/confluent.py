"""confluent-kafka (librdkafka): every codec, every acks, idempotence, groups, administration."""

import time

from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

import exchange
import member

DEADLINE_S = 60
# What a broker, or this client, says of a topic that was created just now.
NOT_YET = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
)
# Nothing is negotiated: the versions of this release are spoken.
OLD = {"api.version.request": False, "broker.version.fallback": "0.11.0"}


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
                if failure.args[0].code() not in NOT_YET or time.time() > deadline:
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


def read(bootstrap, name, what, versions):
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "unused",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "check.crcs": True,
            # Requests of one connection wait for each other, and a Fetch waits this long.
            "fetch.wait.max.ms": 10,
            **versions,
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


def run_exchange(bootstrap):
    runs = [(codec, "all", False, {}) for codec in ("none", "gzip", "snappy", "lz4", "zstd")]
    runs += [("none", "0", False, {}), ("lz4", "1", False, {})]
    runs += [("none", "all", True, {}), ("zstd", "all", True, {})]
    runs += [("gzip", "all", True, OLD), ("snappy", "1", False, OLD)]
    for codec, acks, idempotent, versions in runs:
        what = f"confluent-{codec}-acks-{acks}-{'idempotent' if idempotent else 'plain'}"
        what += "-old" if versions else ""
        name = exchange.topic(what)
        create(bootstrap, name)
        settings = {"compression.type": codec, "acks": acks, "enable.idempotence": idempotent}
        produce(bootstrap, name, settings | versions)
        read(bootstrap, name, what, versions)
        print("ok", what, flush=True)


def run_member(bootstrap, group, topic, strategy, versions):
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 10000,
            "heartbeat.interval.ms": 500,
            "partition.assignment.strategy": "range" if strategy == "range" else "cooperative-sticky",
            **(OLD if versions == "old" else {}),
        }
    )
    owned = set()

    def gain(_, partitions):
        owned.update(partition.partition for partition in partitions)
        member.assigned(owned)

    def lose(_, partitions):
        owned.difference_update(partition.partition for partition in partitions)
        member.assigned(owned)

    consumer.subscribe([topic], on_assign=gain, on_revoke=lose, on_lost=lose)
    ended = member.until_input_ends()
    while not ended.is_set():
        messages = consumer.consume(1000, timeout=0.1)
        for message in messages:
            assert message.error() is None, message.error()
            content = (message.key(), message.value(), message.headers() or [])
            at = message.timestamp()[1]
            member.record(message.partition(), message.offset(), at, *content)
        if messages:
            member.flush()
            consumer.commit(asynchronous=False)
    consumer.close()


def retention(admin, topic):
    resource = ConfigResource(ResourceType.TOPIC, topic)
    entry = admin.describe_configs([resource])[resource].result(DEADLINE_S)["retention.ms"]
    return entry.value, entry.is_default


def run_describe(bootstrap, group, topic):
    admin = AdminClient({"bootstrap.servers": bootstrap})
    listed = admin.list_consumer_groups().result(DEADLINE_S)
    assert not listed.errors, listed.errors
    states = {one.group_id: one.state for one in listed.valid}
    assert states[group] == ConsumerGroupState.STABLE, states
    print("ok list groups")

    described = admin.describe_consumer_groups([group])[group].result(DEADLINE_S)
    assert described.state == ConsumerGroupState.STABLE, described.state
    owned = [p.partition for m in described.members for p in m.assignment.topic_partitions]
    count = len(admin.list_topics(topic, DEADLINE_S).topics[topic].partitions)
    assert sorted(owned) == list(range(count)), owned
    print("ok describe group")

    asked = [ConsumerGroupTopicPartitions(group)]
    committed = admin.list_consumer_group_offsets(asked)[group].result(DEADLINE_S)
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused"})
    for at in committed.topic_partitions:
        ends = consumer.get_watermark_offsets(TopicPartition(topic, at.partition), DEADLINE_S)
        assert at.offset == ends[1], (at, ends)
    consumer.close()
    assert len(committed.topic_partitions) == count, committed.topic_partitions
    print("ok committed offsets")

    exchange.await_equal("before", lambda: retention(admin, topic), ("604800000", True))
    for operation, value, then in (
        (AlterConfigOpType.SET, "7200000", ("7200000", False)),
        (AlterConfigOpType.DELETE, None, ("604800000", True)),
    ):
        change = ConfigEntry("retention.ms", value, incremental_operation=operation)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[change])
        admin.incremental_alter_configs([resource])[resource].result(DEADLINE_S)
        exchange.await_equal(operation, lambda: retention(admin, topic), then)
    print("ok configs")


def run_delete(bootstrap, group, topic):
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.delete_consumer_groups([group])[group].result(DEADLINE_S)
    listed = admin.list_consumer_groups().result(DEADLINE_S)
    assert group not in [one.group_id for one in listed.valid], listed.valid
    print("ok delete group")

    admin.delete_topics([topic], operation_timeout=30)[topic].result(DEADLINE_S)
    assert topic not in admin.list_topics(timeout=DEADLINE_S).topics
    print("ok delete topic")


member.scene(
    {
        "exchange": run_exchange,
        "member": run_member,
        "describe": run_describe,
        "delete": run_delete,
    }
)
