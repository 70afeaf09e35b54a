import java.time.Duration;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Prints all records of topics, a line each: topic, partition, offset, time, key, value, headers;
 * bytes in hexadecimal behind an x, what is absent as a minus.
 */
public final class Dump {
    private static final Duration DEADLINE = Duration.ofSeconds(60);

    /** Arguments: the bootstrap server, then the topics. */
    public static void main(String[] arguments) {
        Map<String, Object> settings = Map.of(
            "bootstrap.servers", arguments[0],
            "enable.auto.commit", false,
            // A partition after the other, on one connection: a Fetch at the end of one waits so long.
            "fetch.max.wait.ms", 10,
            "auto.offset.reset", "none");
        var deserializer = new ByteArrayDeserializer();
        try (var consumer = new KafkaConsumer<>(settings, deserializer, deserializer)) {
            for (String topic : List.of(arguments).subList(1, arguments.length)) {
                for (var partition : consumer.partitionsFor(topic)) {
                    dump(consumer, new TopicPartition(topic, partition.partition()));
                }
            }
        }
    }

    private static void dump(KafkaConsumer<byte[], byte[]> consumer, TopicPartition partition) {
        consumer.assign(List.of(partition));
        consumer.seekToBeginning(List.of(partition));
        long last = consumer.endOffsets(List.of(partition)).get(partition);
        long giveUp = System.nanoTime() + DEADLINE.toNanos();
        while (consumer.position(partition) < last) {
            if (System.nanoTime() > giveUp) {
                throw new AssertionError(partition + " does not come to " + last);
            }
            for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofSeconds(1))) {
                System.out.println(line(record));
            }
        }
    }

    private static String line(ConsumerRecord<byte[], byte[]> record) {
        var line = new StringBuilder();
        line.append(record.topic()).append(' ').append(record.partition());
        line.append(' ').append(record.offset()).append(' ').append(record.timestamp());
        line.append(' ').append(hex(record.key())).append(' ').append(hex(record.value()));
        for (Header header : record.headers()) {
            line.append(' ').append(header.key()).append('=').append(hex(header.value()));
        }
        return line.toString();
    }

    private static String hex(byte[] bytes) {
        return bytes == null ? "-" : "x" + HexFormat.of().formatHex(bytes);
    }
}
