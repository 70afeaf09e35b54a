import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ClassicGroupDescription;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.DescribeConsumerGroupsOptions;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.MemberToRemove;
import org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;

/** A classic consumer group while it lives, after its members left, and one that never was. */
final class AdminGroups {
    private final Admin admin;
    private final Transcript transcript;
    private final String bootstrap;
    private final String group;
    private final TopicPartition partition;

    AdminGroups(Admin admin, Transcript transcript, String bootstrap) {
        this.admin = admin;
        this.transcript = transcript;
        this.bootstrap = bootstrap;
        this.group = transcript.name("group");
        this.partition = new TopicPartition(transcript.name("compacted"), 0);
    }

    void live() {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("group.id", group);
        settings.put("group.instance.id", "instance");
        settings.put("client.id", "client");
        settings.put("enable.auto.commit", false);
        settings.put("auto.offset.reset", "earliest");
        var deserializer = new StringDeserializer();
        transcript.section("a live group", 8, 9, 10, 11, 12, 13, 14, 15, 16, 42, 47);
        try (var consumer = new KafkaConsumer<>(settings, deserializer, deserializer)) {
            consumer.subscribe(List.of(partition.topic()));
            transcript.call("read", () -> {
                int count = 0;
                for (int tries = 0; tries < 300 && count < 10; tries++) {
                    count += consumer.poll(Duration.ofMillis(100)).count();
                }
                consumer.commitSync(Map.of(partition, new OffsetAndMetadata(7, "note")));
                return count;
            });
            ask();
            transcript.call("alter offsets", () -> Transcript.get(admin.alterConsumerGroupOffsets(
                group, Map.of(partition, new OffsetAndMetadata(3))).all()));
            transcript.call("delete offsets", () -> Transcript.get(
                admin.deleteConsumerGroupOffsets(group, Set.of(partition)).all()));
            transcript.call("delete", () ->
                Transcript.get(admin.deleteConsumerGroups(List.of(group)).all()));
            transcript.call("remove an unknown member", () -> removed("nobody"));
            transcript.call("remove the member", () -> removed("instance"));
        }
    }

    private Object removed(String instance) throws Exception {
        var options = new RemoveMembersFromConsumerGroupOptions(
            Set.of(new MemberToRemove(instance)));
        return Transcript.get(admin.removeMembersFromConsumerGroup(group, options).all());
    }

    /** The calls that only look. */
    private void ask() {
        transcript.call("listGroups", () -> listed(new ListGroupsOptions()));
        transcript.call("listGroups stable", () ->
            listed(new ListGroupsOptions().inGroupStates(Set.of(GroupState.STABLE))));
        transcript.call("listGroups empty", () ->
            listed(new ListGroupsOptions().inGroupStates(Set.of(GroupState.EMPTY))));
        transcript.call("listGroups classic", () ->
            listed(new ListGroupsOptions().withTypes(Set.of(GroupType.CLASSIC))));
        transcript.call("listGroups share", () ->
            listed(new ListGroupsOptions().withTypes(Set.of(GroupType.SHARE))));
        transcript.call("listGroups of protocol", () ->
            listed(new ListGroupsOptions().withProtocolTypes(Set.of("consumer"))));
        transcript.call("listConsumerGroups", () -> Transcript.sorted(
            Transcript.get(admin.listConsumerGroups().all()).stream()
                .filter(listing -> transcript.isOurs(listing.groupId())).toList()));
        transcript.call("describeConsumerGroups", () -> shown(described(group)));
        transcript.call("operations", () -> {
            var options = new DescribeConsumerGroupsOptions().includeAuthorizedOperations(true);
            var all = Transcript.get(admin.describeConsumerGroups(List.of(group), options).all());
            return Transcript.sorted(all.get(group).authorizedOperations());
        });
        transcript.call("describeClassicGroups", () -> {
            ClassicGroupDescription found =
                Transcript.get(admin.describeClassicGroups(List.of(group)).all()).get(group);
            return found.protocol() + " " + found.protocolData() + " " + found.state() + " "
                + found.members().size() + " on " + found.coordinator().id();
        });
        transcript.call("listConsumerGroupOffsets", () -> {
            var offsets = Transcript.get(
                admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata());
            return offsets.entrySet().stream().map(entry -> entry.getKey() + "="
                + entry.getValue().offset() + " " + entry.getValue().metadata() + " "
                + entry.getValue().leaderEpoch()).sorted().toList();
        });
    }

    private String listed(ListGroupsOptions options) throws Exception {
        return Transcript.sorted(Transcript.get(admin.listGroups(options).all()).stream()
            .filter(listing -> transcript.isOurs(listing.groupId())).toList());
    }

    private ConsumerGroupDescription described(String name) throws Exception {
        return Transcript.get(admin.describeConsumerGroups(List.of(name)).all()).get(name);
    }

    private static String shown(ConsumerGroupDescription found) {
        return found.groupId() + " simple " + found.isSimpleConsumerGroup() + " " + found.type()
            + " " + found.partitionAssignor() + " " + found.groupState() + " on "
            + found.coordinator().id() + " " + found.members().stream().map(member ->
                member.groupInstanceId() + " " + member.clientId() + " " + member.host() + " "
                    + member.assignment().topicPartitions() + " " + member.upgraded()).toList();
    }

    void empty() {
        transcript.section("an empty group", 8, 9, 10, 11, 12, 13, 14, 15, 16, 42, 47);
        ask();
        transcript.call("alter offsets", () -> Transcript.get(admin.alterConsumerGroupOffsets(
            group, Map.of(partition, new OffsetAndMetadata(3, "moved"))).all()));
        transcript.call("altered", () -> Transcript.get(
            admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata()));
        transcript.call("offset of an unknown partition", () -> Transcript.get(
            admin.alterConsumerGroupOffsets(group, Map.of(
                new TopicPartition(transcript.name("unknown"), 0), new OffsetAndMetadata(3)))
                .all()));
        transcript.call("delete no offset", () -> Transcript.get(
            admin.deleteConsumerGroupOffsets(group,
                Set.of(new TopicPartition(partition.topic(), 1))).all()));
        transcript.call("remove a member", () -> removed("instance"));
        transcript.call("delete offsets", () -> Transcript.get(
            admin.deleteConsumerGroupOffsets(group, Set.of(partition)).all()));
        transcript.call("offsets", () -> Transcript.get(
            admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata()));
        String simple = transcript.name("simple");
        transcript.call("made by a commit", () -> Transcript.get(admin.alterConsumerGroupOffsets(
            simple, Map.of(partition, new OffsetAndMetadata(3))).all()));
        transcript.call("simple", () -> shown(described(simple)));
        transcript.call("simple listed", () -> listed(new ListGroupsOptions()));
        transcript.call("delete", () ->
            Transcript.get(admin.deleteConsumerGroups(List.of(group, simple)).all()));
        transcript.call("left", () -> listed(new ListGroupsOptions()));
    }

    void unknown() {
        transcript.section("an unknown group", 8, 9, 10, 11, 12, 13, 14, 15, 16, 42, 47);
        String name = transcript.name("unknown");
        transcript.call("describeConsumerGroups", () -> described(name));
        transcript.call("describeClassicGroups", () ->
            Transcript.get(admin.describeClassicGroups(List.of(name)).all()));
        transcript.call("listConsumerGroupOffsets", () -> Transcript.get(
            admin.listConsumerGroupOffsets(name).partitionsToOffsetAndMetadata()));
        transcript.call("deleteConsumerGroups", () ->
            Transcript.get(admin.deleteConsumerGroups(List.of(name)).all()));
        transcript.call("deleteConsumerGroupOffsets", () -> Transcript.get(
            admin.deleteConsumerGroupOffsets(name, Set.of(partition)).all()));
        transcript.call("removeMembersFromConsumerGroup", () -> {
            var options = new RemoveMembersFromConsumerGroupOptions(
                Set.of(new MemberToRemove("instance")));
            return Transcript.get(admin.removeMembersFromConsumerGroup(name, options).all());
        });
    }
}
