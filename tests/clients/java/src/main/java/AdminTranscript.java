import java.util.Map;
import java.util.UUID;
import org.apache.kafka.clients.admin.Admin;

/** What every method of the Java admin client answers; see {@link Transcript}. */
public final class AdminTranscript {
    public static void main(String[] arguments) throws Exception {
        String bootstrap = arguments[0];
        Map<String, Object> settings = Map.of(
            "bootstrap.servers", bootstrap,
            "default.api.timeout.ms", 30_000,
            "request.timeout.ms", 30_000);
        String prefix = "t" + UUID.randomUUID().toString().replace("-", "");
        var transcript = new Transcript(prefix, bootstrap);
        try (Admin admin = Admin.create(settings)) {
            var topics = new AdminTopics(admin, transcript);
            topics.create();
            topics.describe();
            topics.grow();
            topics.configure();
            topics.configureBrokers();
            var records = new AdminRecords(admin, transcript, bootstrap);
            records.offsets();
            records.producersAndReplicas();
            records.delete();
            var groups = new AdminGroups(admin, transcript, bootstrap);
            groups.live();
            groups.empty();
            groups.unknown();
            var cluster = new AdminCluster(admin, transcript);
            cluster.describe();
            cluster.security();
            cluster.transactions();
            cluster.newerGroups();
            topics.delete();
        }
    }
}
