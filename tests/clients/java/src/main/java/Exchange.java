import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * The Java client: every codec, every acks, idempotence, time lookup, seek.
 *
 * <p>Record i goes to partition i % PARTITIONS, so offset n of partition p must hold record
 * n * PARTITIONS + p: dense offsets and order are one comparison.
 */
final class Exchange {
    private static final int PARTITIONS = 3;
    private static final int RECORDS = 300;
    private static final long START_MS = System.currentTimeMillis() - 3_600_000;
    private static final long STEP_MS = 1_000;
    private static final Duration DEADLINE = Duration.ofSeconds(60);

    private record Run(String codec, String acks, boolean idempotent) {
        String name() {
            return "java-" + codec + "-acks-" + acks + (idempotent ? "-idempotent" : "-plain");
        }
    }

    static void run(String bootstrap) throws Exception {
        List<Run> runs = new ArrayList<>();
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            runs.add(new Run(codec, "all", true));
        }
        runs.add(new Run("none", "0", false));
        runs.add(new Run("lz4", "1", false));
        runs.add(new Run("zstd", "all", false));
        for (Run run : runs) {
            String topic = run.name() + "-" + UUID.randomUUID();
            create(bootstrap, topic);
            produce(bootstrap, topic, run);
            read(bootstrap, topic);
            System.out.println("ok " + run.name());
        }
    }

    private static void create(String bootstrap, String topic) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            admin.createTopics(List.of(new NewTopic(topic, PARTITIONS, (short) 1))).all()
                .get(DEADLINE.toSeconds(), TimeUnit.SECONDS);
            var described = admin.describeTopics(List.of(topic)).allTopicNames()
                .get(DEADLINE.toSeconds(), TimeUnit.SECONDS);
            check(described.get(topic).partitions().size() == PARTITIONS, "partitions described");
            var nodes = admin.describeCluster().nodes().get(DEADLINE.toSeconds(), TimeUnit.SECONDS);
            check(!nodes.isEmpty(), "the cluster has a node");
            // With acks=0 a partition without a leader loses records without a word.
            for (int index = 0; index < PARTITIONS; index++) {
                var partition = new TopicPartition(topic, index);
                var end = admin.listOffsets(Map.of(partition, OffsetSpec.latest()))
                    .partitionResult(partition).get(DEADLINE.toSeconds(), TimeUnit.SECONDS);
                check(end.offset() == 0, "a new partition is empty");
            }
        }
    }

    private static void produce(String bootstrap, String topic, Run run) throws Exception {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("compression.type", run.codec);
        settings.put("acks", run.acks);
        settings.put("enable.idempotence", run.idempotent);
        settings.put("linger.ms", 5);
        List<Future<RecordMetadata>> pending = new ArrayList<>();
        var serializer = new ByteArraySerializer();
        try (var producer = new KafkaProducer<byte[], byte[]>(settings, serializer, serializer)) {
            for (int i = 0; i < RECORDS; i++) {
                var record = new ProducerRecord<>(topic, i % PARTITIONS, timestamp(i), key(i), value(i));
                record.headers().add(new RecordHeader("number", text(String.valueOf(i))));
                record.headers().add(new RecordHeader("number", text("again")));
                pending.add(producer.send(record));
            }
            producer.flush();
            for (int i = 0; i < RECORDS; i++) {
                RecordMetadata metadata = pending.get(i).get(DEADLINE.toSeconds(), TimeUnit.SECONDS);
                if (!run.acks.equals("0")) {
                    check(metadata.offset() == i / PARTITIONS, "offset " + metadata + " of " + i);
                }
            }
        }
    }

    private static void read(String bootstrap, String topic) {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("enable.auto.commit", false);
        settings.put("auto.offset.reset", "none");
        var deserializer = new ByteArrayDeserializer();
        try (var consumer = new KafkaConsumer<>(settings, deserializer, deserializer)) {
            for (int index = 0; index < PARTITIONS; index++) {
                TopicPartition partition = new TopicPartition(topic, index);
                int count = (RECORDS - index + PARTITIONS - 1) / PARTITIONS;
                consumer.assign(List.of(partition));
                take(consumer, partition, 0, count);
                check(consumer.beginningOffsets(List.of(partition)).get(partition) == 0, "start");
                check(consumer.endOffsets(List.of(partition)).get(partition) == count, "end");
                for (int n : new int[] {0, 1, count / 2, count - 1}) {
                    long exact = timestamp(n * PARTITIONS + index);
                    check(offsetAt(consumer, partition, exact) == n, "offset at " + exact);
                    check(offsetAt(consumer, partition, exact - 1) == n, "offset before " + exact);
                }
                check(offsetAt(consumer, partition, timestamp(RECORDS) + 1) == -1, "past the end");
                take(consumer, partition, count / 2, 5);
            }
        }
    }

    private static void take(
            KafkaConsumer<byte[], byte[]> consumer, TopicPartition partition, int start, int count) {
        consumer.seek(partition, start);
        long end = System.nanoTime() + DEADLINE.toNanos();
        int next = start;
        while (next < start + count) {
            check(System.nanoTime() < end, partition + ": nothing after offset " + next);
            for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofSeconds(1))) {
                int i = next * PARTITIONS + partition.partition();
                check(record.offset() == next, "offset " + record.offset() + ", not " + next);
                check(Arrays.equals(record.key(), key(i)), "key of " + record);
                check(Arrays.equals(record.value(), value(i)), "value of " + record);
                check(record.timestamp() == timestamp(i), "timestamp of " + record);
                Header[] headers = record.headers().toArray();
                check(headers.length == 2, "headers of " + record);
                check(Arrays.equals(headers[0].value(), text(String.valueOf(i))), "first header");
                check(Arrays.equals(headers[1].value(), text("again")), "second header");
                next++;
            }
        }
    }

    private static long offsetAt(
            KafkaConsumer<byte[], byte[]> consumer, TopicPartition partition, long timestamp) {
        OffsetAndTimestamp found = consumer.offsetsForTimes(Map.of(partition, timestamp)).get(partition);
        return found == null ? -1 : found.offset();
    }

    private static byte[] key(int i) {
        return text("key-" + i);
    }

    private static byte[] value(int i) {
        return i % 50 == 49 ? new byte[0] : text("value-" + i + "-" + "x".repeat(i * 7 % 500));
    }

    private static long timestamp(int i) {
        return START_MS + i * STEP_MS;
    }

    private static byte[] text(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }
}
