"""kafka-python: every codec, every acks, idempotence, groups, administration."""

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import (
    AlterConfigOp,
    ConfigResource,
    ConfigResourceType,
    KafkaAdminClient,
    NewTopic,
)
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor

import exchange
import member

DEADLINE_S = 60
# Nothing is negotiated: the versions of this release are spoken.
OLD = {"api_version": (0, 11)}


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


def read(bootstrap, name, what, versions):
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        consumer_timeout_ms=DEADLINE_S * 1000,
        **versions,
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


def run_exchange(bootstrap):
    runs = [(codec, "all", False, {}) for codec in (None, "gzip", "snappy", "lz4", "zstd")]
    runs += [(None, 0, False, {}), ("gzip", 1, False, {}), (None, "all", True, {})]
    runs += [("lz4", 1, False, OLD)]
    for codec, acks, idempotent, versions in runs:
        what = f"kafka-python-{codec}-acks-{acks}-{'idempotent' if idempotent else 'plain'}"
        what += "-old" if versions else ""
        name = exchange.topic(what)
        create(bootstrap, name)
        settings = {"compression_type": codec, "acks": acks, "enable_idempotence": idempotent}
        produce(bootstrap, name, settings | versions)
        read(bootstrap, name, what, versions)
        print("ok", what, flush=True)


class Account(ConsumerRebalanceListener):
    """Tells what the member owns: with this library's cooperative rebalance, only changes come."""

    def __init__(self):
        self.owned = set()

    def on_partitions_revoked(self, revoked):
        self.owned -= {partition.partition for partition in revoked}
        member.assigned(self.owned)

    def on_partitions_assigned(self, assigned):
        self.owned |= {partition.partition for partition in assigned}
        member.assigned(self.owned)


def run_member(bootstrap, group, topic, strategy, versions):
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=10000,
        heartbeat_interval_ms=500,
        partition_assignment_strategy=(
            RangePartitionAssignor if strategy == "range" else CooperativeStickyAssignor,
        ),
        **(OLD if versions == "old" else {}),
    )
    consumer.subscribe([topic], listener=Account())
    ended = member.until_input_ends()
    while not ended.is_set():
        polled = consumer.poll(timeout_ms=100)
        for partition, records in polled.items():
            for record in records:
                content = (record.key, record.value, record.headers)
                member.record(partition.partition, record.offset, record.timestamp, *content)
        if polled:
            member.flush()
            consumer.commit()
    consumer.close()


def retention(admin, topic):
    asked = ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": None})
    answer = admin.describe_configs([asked], config_filter="all")
    entry = answer["topic"][topic]["retention.ms"]
    return entry["value"], entry["config_source"]


def run_describe(bootstrap, group, topic):
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    states = {one["group_id"]: one["group_state"] for one in admin.list_groups()}
    assert states[group] == "Stable", states
    print("ok list groups")

    described = admin.describe_groups([group])[group]
    assert described["group_state"] == "Stable", described
    assigned = [one["member_assignment"]["assigned_partitions"] for one in described["members"]]
    owned = sorted(p for member in assigned for one in member for p in one["partitions"])
    (count,) = [len(one["partitions"]) for one in admin.describe_topics([topic])]
    assert owned == list(range(count)), described
    print("ok describe group")

    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=None)
    ends = consumer.end_offsets([TopicPartition(topic, index) for index in range(count)])
    consumer.close()
    committed = admin.list_group_offsets({group: None})[group]
    assert {partition: at.offset for partition, at in committed.items()} == ends, committed
    print("ok committed offsets")

    def await_retention(*expected):
        exchange.await_equal("retention.ms", lambda: retention(admin, topic), expected)

    await_retention("604800000", "DEFAULT_CONFIG")
    change = {"retention.ms": (AlterConfigOp.SET, "7200000")}
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, change)])
    await_retention("7200000", "DYNAMIC_TOPIC_CONFIG")
    admin.reset_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": None})])
    await_retention("604800000", "DEFAULT_CONFIG")
    print("ok configs")
    admin.close()


def run_delete(bootstrap, group, topic):
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    assert admin.delete_groups([group]) == {group: "OK"}
    assert group not in [one["group_id"] for one in admin.list_groups()]
    print("ok delete group")

    admin.delete_topics([topic], timeout_ms=30_000)
    assert topic not in admin.list_topics()
    print("ok delete topic")
    admin.close()


member.scene(
    {
        "exchange": run_exchange,
        "member": run_member,
        "describe": run_describe,
        "delete": run_delete,
    }
)
