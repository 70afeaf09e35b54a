import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;

/** What the Java client's admin sees of a group and its topic, changes and deletes. */
final class GroupAdministration {
    static void describe(String bootstrap, String group, String topic) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            GroupListing listed = get(admin.listGroups().all()).stream()
                .filter(one -> one.groupId().equals(group)).findFirst().orElseThrow();
            check(listed.groupState().orElseThrow() == GroupState.STABLE, "listed " + listed);
            System.out.println("ok list groups");

            int partitions = get(admin.describeTopics(List.of(topic)).allTopicNames())
                .get(topic).partitions().size();
            var described = get(admin.describeConsumerGroups(List.of(group)).all()).get(group);
            check(described.groupState() == GroupState.STABLE, "state of " + described);
            long owned = described.members().stream()
                .mapToLong(member -> member.assignment().topicPartitions().size()).sum();
            check(owned == partitions, "assignment of " + described);
            System.out.println("ok describe group");

            Map<TopicPartition, OffsetSpec> asked = IntStream.range(0, partitions).boxed()
                .collect(Collectors.toMap(index -> new TopicPartition(topic, index),
                    index -> OffsetSpec.latest()));
            var ends = get(admin.listOffsets(asked).all());
            var committed =
                get(admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata());
            check(committed.keySet().equals(ends.keySet()), "committed " + committed);
            committed.forEach((partition, at) ->
                check(at.offset() == ends.get(partition).offset(), partition + " at " + at));
            System.out.println("ok committed offsets");

            configs(admin, topic);
        }
    }

    private static void configs(Admin admin, String topic) throws Exception {
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        var hours = new ConfigEntry("retention.ms", "7200000");
        awaitRetention(admin, resource, "604800000", true);
        var set = new AlterConfigOp(hours, AlterConfigOp.OpType.SET);
        get(admin.incrementalAlterConfigs(Map.of(resource, List.of(set))).all());
        awaitRetention(admin, resource, "7200000", false);
        var delete = new AlterConfigOp(hours, AlterConfigOp.OpType.DELETE);
        get(admin.incrementalAlterConfigs(Map.of(resource, List.of(delete))).all());
        awaitRetention(admin, resource, "604800000", true);
        System.out.println("ok configs");
    }

    /** Reads until it is as expected: a broker may answer a change before it shows. */
    private static void awaitRetention(
            Admin admin, ConfigResource resource, String value, boolean isDefault) throws Exception {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
        while (true) {
            ConfigEntry entry = get(admin.describeConfigs(List.of(resource)).all()).get(resource)
                .get("retention.ms");
            if (entry.value().equals(value) && entry.isDefault() == isDefault) {
                return;
            }
            check(System.nanoTime() < end, entry + " is not " + value);
            Thread.sleep(20);
        }
    }

    static void delete(String bootstrap, String group, String topic) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            get(admin.deleteConsumerGroups(List.of(group)).all());
            check(get(admin.listGroups().all()).stream()
                .noneMatch(one -> one.groupId().equals(group)), "still listed");
            System.out.println("ok delete group");

            get(admin.deleteTopics(List.of(topic)).all());
            check(!get(admin.listTopics().names()).contains(topic), "still listed");
            System.out.println("ok delete topic");
        }
    }

    private static <T> T get(KafkaFuture<T> future) throws Exception {
        return future.get(60, TimeUnit.SECONDS);
    }

    private static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }
}
