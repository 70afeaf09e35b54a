import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionReplica;
import org.apache.kafka.common.serialization.StringSerializer;

/** Offsets, producers, replicas and the deletion of records: what hangs on a partition's log. */
final class AdminRecords {
    private final Admin admin;
    private final Transcript transcript;
    private final TopicPartition partition;
    private final TopicPartition unknown;
    private final TopicPartition compacted;
    private final long startMs = System.currentTimeMillis() - 60_000;

    AdminRecords(Admin admin, Transcript transcript, String bootstrap) throws Exception {
        this.admin = admin;
        this.transcript = transcript;
        this.partition = new TopicPartition(transcript.name("topic"), 0);
        this.unknown = new TopicPartition(transcript.name("unknown"), 0);
        this.compacted = new TopicPartition(transcript.name("compacted"), 0);
        var serializer = new StringSerializer();
        Map<String, Object> settings = Map.of("bootstrap.servers", bootstrap, "linger.ms", 5);
        try (var producer = new KafkaProducer<>(settings, serializer, serializer)) {
            for (int i = 0; i < 10; i++) {
                for (TopicPartition to : List.of(partition, compacted)) {
                    producer.send(new ProducerRecord<>(to.topic(), 0, startMs + i, "key", "value"));
                }
            }
            producer.flush();
        }
    }

    void offsets() {
        transcript.section("listOffsets", 2);
        offset("earliest", partition, OffsetSpec.earliest());
        offset("latest", partition, OffsetSpec.latest());
        offset("max timestamp", partition, OffsetSpec.maxTimestamp());
        offset("by time", partition, OffsetSpec.forTimestamp(startMs + 4));
        offset("past the end", partition, OffsetSpec.forTimestamp(startMs + 1_000_000));
        offset("earliest local", partition, OffsetSpec.earliestLocal());
        offset("latest tiered", partition, OffsetSpec.latestTiered());
        offset("earliest pending upload", partition, OffsetSpec.earliestPendingUpload());
        transcript.call("read committed", () -> {
            var options = new ListOffsetsOptions(IsolationLevel.READ_COMMITTED);
            var asked = Map.of(partition, OffsetSpec.latest());
            return Transcript.get(admin.listOffsets(asked, options).all()).get(partition).offset();
        });
    }

    private void offset(String what, TopicPartition of, OffsetSpec spec) {
        transcript.call(what, () -> {
            var found = Transcript.get(admin.listOffsets(Map.of(of, spec)).partitionResult(of));
            long at = found.timestamp() < 0 ? found.timestamp() : found.timestamp() - startMs;
            // The first epoch of a partition is the broker's own affair.
            return found.offset() + " at " + at + " in an epoch " + found.leaderEpoch().isPresent();
        });
    }

    void producersAndReplicas() {
        transcript.section("describeProducers", 61);
        transcript.call("one", () -> Transcript.get(admin.describeProducers(List.of(partition)).all())
            .get(partition).activeProducers().stream().map(state ->
                "epoch " + state.producerEpoch() + " sequence " + state.lastSequence() + " at "
                    + (state.lastTimestamp() - startMs) + " coordinator "
                    + state.coordinatorEpoch() + " open "
                    + state.currentTransactionStartOffset()).toList());

        transcript.section("describeLogDirs", 35);
        transcript.call("ours", () -> Transcript.get(
            admin.describeLogDirs(List.of(1)).allDescriptions()).get(1).values().stream()
            .map(directory -> directory.error() + " "
                + (directory.totalBytes().orElse(-1) >= directory.usableBytes().orElse(-1)) + " "
                + directory.replicaInfos().entrySet().stream()
                    .filter(replica -> transcript.isOurs(replica.getKey().topic()))
                    .map(replica -> replica.getKey() + " lag " + replica.getValue().offsetLag()
                        + " future " + replica.getValue().isFuture()
                        + (replica.getKey().equals(partition)
                            ? " filled " + (replica.getValue().size() > 0) : ""))
                    .sorted().collect(Collectors.joining(", "))).toList());
        var replica = new TopicPartitionReplica(partition.topic(), 0, 1);
        transcript.section("describeReplicaLogDirs", 35);
        transcript.call("one", () -> {
            var found = Transcript.get(admin.describeReplicaLogDirs(List.of(replica)).all());
            var info = found.get(replica);
            return (info.getCurrentReplicaLogDir() != null) + " lag "
                + info.getCurrentReplicaOffsetLag() + " future " + info.getFutureReplicaLogDir();
        });
        transcript.section("alterReplicaLogDirs", 34);
        transcript.call("nowhere", () -> Transcript.get(
            admin.alterReplicaLogDirs(Map.of(replica, "/no/such/directory")).all()));

        transcript.section("electLeaders", 43);
        for (ElectionType type : ElectionType.values()) {
            transcript.call(type + " needed by nobody", () ->
                elected(admin.electLeaders(type, Set.of(partition)).partitions().get()));
            transcript.call(type + " unknown", () ->
                elected(admin.electLeaders(type, Set.of(unknown)).partitions().get()));
        }
        transcript.call("all", () -> elected(
            admin.electLeaders(ElectionType.PREFERRED, null).partitions().get()));

        transcript.section("listPartitionReassignments", 46);
        transcript.call("all", () ->
            Transcript.sorted(Transcript.get(admin.listPartitionReassignments().reassignments())));
        transcript.call("one", () -> Transcript.sorted(Transcript.get(
            admin.listPartitionReassignments(Set.of(partition)).reassignments())));
        transcript.section("alterPartitionReassignments", 45);
        reassignment("cancel nothing", partition, Optional.empty());
        reassignment("to nobody", partition, Optional.of(new NewPartitionReassignment(List.of(99))));
        reassignment("unknown", unknown, Optional.of(new NewPartitionReassignment(List.of(1))));
    }

    private static String elected(Map<TopicPartition, Optional<Throwable>> results) {
        return Transcript.sorted(results);
    }

    private void reassignment(
            String what, TopicPartition of, Optional<NewPartitionReassignment> to) {
        transcript.call(what, () ->
            Transcript.get(admin.alterPartitionReassignments(Map.of(of, to)).all()));
    }

    void delete() {
        transcript.section("deleteRecords", 21);
        deletion("before 3", partition, 3);
        deletion("before 2", partition, 2);
        deletion("before 1000", partition, 1_000);
        deletion("before -2", partition, -2);
        deletion("all", partition, -1);
        deletion("compacted", compacted, 3);
        transcript.section("listOffsets", 2, 21);
        offset("earliest, records deleted", partition, OffsetSpec.earliest());
        offset("earliest, compacted", compacted, OffsetSpec.earliest());
    }

    private void deletion(String what, TopicPartition of, long before) {
        transcript.call(what, () -> {
            var asked = Map.of(of, RecordsToDelete.beforeOffset(before));
            return admin.deleteRecords(asked).lowWatermarks().get(of)
                .get(60, TimeUnit.SECONDS).lowWatermark();
        });
    }
}
