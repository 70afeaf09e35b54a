import java.io.BufferedOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * A member of a group, which says what it owns and what it reads, a line each, tabs between fields:
 *
 * <pre>
 * assigned PARTITION,PARTITION...
 * record PARTITION OFFSET TIMESTAMP KEY VALUE NAME=VALUE,NAME=VALUE...
 * </pre>
 *
 * <p>The lines of a batch are out before the batch is committed. The end of standard input makes
 * the member leave.
 */
final class Member implements ConsumerRebalanceListener {
    private final PrintStream out = new PrintStream(new BufferedOutputStream(System.out), false);
    private final TreeSet<Integer> owned = new TreeSet<>();

    static void run(String bootstrap, String group, String topic, String strategy) {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("group.id", group);
        settings.put("enable.auto.commit", false);
        settings.put("auto.offset.reset", "earliest");
        settings.put("session.timeout.ms", 10_000);
        settings.put("heartbeat.interval.ms", 500);
        if (strategy.equals("range")) {
            settings.put("partition.assignment.strategy",
                "org.apache.kafka.clients.consumer.RangeAssignor");
        }
        var member = new Member();
        var deserializer = new StringDeserializer();
        try (var consumer = new KafkaConsumer<>(settings, deserializer, deserializer)) {
            consumer.subscribe(List.of(topic), member);
            AtomicBoolean ended = untilInputEnds();
            while (!ended.get()) {
                var records = consumer.poll(Duration.ofMillis(100));
                records.forEach(member::tell);
                if (!records.isEmpty()) {
                    member.out.flush();
                    consumer.commitSync();
                }
            }
        }
    }

    /** A flag that is set once standard input is at its end. */
    private static AtomicBoolean untilInputEnds() {
        AtomicBoolean ended = new AtomicBoolean();
        Thread waiting = new Thread(() -> {
            try {
                System.in.transferTo(OutputStream.nullOutputStream());
            } catch (IOException failure) {
                System.err.println(failure);
            }
            ended.set(true);
        });
        waiting.setDaemon(true);
        waiting.start();
        return ended;
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
        partitions.forEach(partition -> owned.add(partition.partition()));
        tellOwned();
    }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
        partitions.forEach(partition -> owned.remove(partition.partition()));
        tellOwned();
    }

    private void tellOwned() {
        List<String> numbers = owned.stream().map(String::valueOf).toList();
        out.printf("assigned\t%s%n", String.join(",", numbers));
        out.flush();
    }

    private void tell(ConsumerRecord<String, String> record) {
        List<String> headers = new ArrayList<>();
        for (Header header : record.headers()) {
            headers.add(header.key() + "=" + new String(header.value(), StandardCharsets.UTF_8));
        }
        out.printf("record\t%d\t%d\t%d\t%s\t%s\t%s%n", record.partition(), record.offset(),
            record.timestamp(), record.key(), record.value(), String.join(",", headers));
    }
}
