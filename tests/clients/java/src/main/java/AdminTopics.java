import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.AlterConfigOp.OpType;
import org.apache.kafka.clients.admin.AlterConfigsOptions;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.CreatePartitionsOptions;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.DescribeConfigsOptions;
import org.apache.kafka.clients.admin.DescribeTopicsOptions;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.config.ConfigResource.Type;

/** Topics and configurations. */
final class AdminTopics {
    /** Broker keys whose meaning does not hang on one implementation. */
    private static final Set<String> BROKER_KEYS = Set.of(
        "auto.create.topics.enable", "compression.type", "group.initial.rebalance.delay.ms",
        "log.cleanup.policy", "log.message.timestamp.type",
        "log.retention.bytes", "log.retention.hours", "log.retention.ms", "log.segment.bytes",
        "max.connections", "message.max.bytes", "offsets.retention.minutes");

    private final Admin admin;
    private final Transcript transcript;
    private final String topic;

    AdminTopics(Admin admin, Transcript transcript) {
        this.admin = admin;
        this.transcript = transcript;
        this.topic = transcript.name("topic");
    }

    void create() {
        transcript.section("createTopics", 19);
        transcript.call("plain", () -> {
            var result = admin.createTopics(List.of(
                new NewTopic(topic, 2, (short) 1).configs(Map.of("retention.ms", "7200000"))));
            var config = Transcript.get(result.config(topic)).get("retention.ms");
            return List.of(Transcript.get(result.numPartitions(topic)),
                Transcript.get(result.replicationFactor(topic)), config.value(), config.source(),
                !Transcript.get(result.topicId(topic)).equals(Uuid.ZERO_UUID));
        });
        creation("again", new NewTopic(topic, 2, (short) 1));
        creation("empty name", new NewTopic("", 1, (short) 1));
        creation("two dots", new NewTopic("..", 1, (short) 1));
        creation("slash", new NewTopic("a/b", 1, (short) 1));
        creation("250 characters", new NewTopic("a".repeat(250), 1, (short) 1));
        creation("no partitions", new NewTopic(transcript.name("none"), 0, (short) 1));
        creation("three replicas", new NewTopic(transcript.name("three"), 1, (short) 3));
        creation("no replicas", new NewTopic(transcript.name("zero"), 1, (short) 0));
        creation("assigned", new NewTopic(transcript.name("assigned"),
            Map.of(0, List.of(1), 1, List.of(1))));
        creation("assigned to nobody", new NewTopic(transcript.name("nobody"),
            Map.of(0, List.of(99))));
        creation("assigned with a gap", new NewTopic(transcript.name("gap"),
            Map.of(0, List.of(1), 2, List.of(1))));
        creation("assigned twice", new NewTopic(transcript.name("twice"),
            Map.of(0, List.of(1, 1))));
        creation("unknown key", new NewTopic(transcript.name("key"), 1, (short) 1)
            .configs(Map.of("no.such.key", "1")));
        creation("bad value", new NewTopic(transcript.name("value"), 1, (short) 1)
            .configs(Map.of("retention.ms", "soon")));
        creation("bad policy", new NewTopic(transcript.name("policy"), 1, (short) 1)
            .configs(Map.of("cleanup.policy", "shred")));
        creation("small segments", new NewTopic(transcript.name("small"), 1, (short) 1)
            .configs(Map.of("segment.bytes", "1000")));
        creation("compacted", new NewTopic(transcript.name("compacted"), 1, (short) 1)
            .configs(Map.of("cleanup.policy", "compact")));
        transcript.call("only validated", () -> {
            var dry = new NewTopic(transcript.name("dry"), 1, (short) 1);
            var options = new CreateTopicsOptions().validateOnly(true);
            return Transcript.get(admin.createTopics(List.of(dry), options).all());
        });
        transcript.call("defaults", () -> {
            var defaults = new NewTopic(transcript.name("defaults"),
                java.util.Optional.empty(), java.util.Optional.empty());
            var result = admin.createTopics(List.of(defaults));
            return List.of(Transcript.get(result.numPartitions(defaults.name())),
                Transcript.get(result.replicationFactor(defaults.name())));
        });
    }

    private void creation(String what, NewTopic topic) {
        transcript.call(what, () -> Transcript.get(admin.createTopics(List.of(topic)).all()));
    }

    void describe() {
        transcript.section("listTopics", 3);
        transcript.await("ours", "[ours-assigned false, ours-compacted false, ours-defaults false, "
            + "ours-topic false]", () -> Transcript.sorted(
                Transcript.get(admin.listTopics().listings()).stream()
                    .filter(listing -> transcript.isOurs(listing.name()))
                    .map(listing -> listing.name() + " " + listing.isInternal()).toList()));

        transcript.section("describeTopics", 3);
        transcript.call("by name", () -> shown(named(topic)));
        transcript.call("by id", () -> {
            var id = TopicCollection.ofTopicIds(List.of(named(topic).topicId()));
            return Transcript.get(admin.describeTopics(id).allTopicIds()).values().stream()
                .map(AdminTopics::shown).toList();
        });
        transcript.call("operations", () -> {
            var options = new DescribeTopicsOptions().includeAuthorizedOperations(true);
            var all = Transcript.get(admin.describeTopics(List.of(topic), options).allTopicNames());
            return Transcript.sorted(all.get(topic).authorizedOperations());
        });
        transcript.call("unknown name", () -> named(transcript.name("unknown")));
        transcript.call("unknown id", () -> {
            var id = TopicCollection.ofTopicIds(List.of(new Uuid(1, 2)));
            return Transcript.get(admin.describeTopics(id).allTopicIds());
        });
        transcript.call("bad name", () -> named("a/b"));
    }

    private TopicDescription named(String name) throws Exception {
        return Transcript.get(admin.describeTopics(List.of(name)).allTopicNames()).get(name);
    }

    private static String shown(TopicDescription topic) {
        String partitions = topic.partitions().stream().map(partition ->
            partition.partition() + " leader " + partition.leader() + " replicas "
                + partition.replicas() + " isr " + partition.isr()).collect(Collectors.joining("; "));
        return topic.name() + " " + topic.isInternal() + ": " + partitions;
    }

    void grow() {
        transcript.section("createPartitions", 37);
        growth("to five", topic, NewPartitions.increaseTo(5));
        transcript.await("shown", "5", () -> named(topic).partitions().size());
        growth("to two", topic, NewPartitions.increaseTo(2));
        growth("to five again", topic, NewPartitions.increaseTo(5));
        growth("to zero", topic, NewPartitions.increaseTo(0));
        growth("unknown", transcript.name("unknown"), NewPartitions.increaseTo(2));
        growth("assigned", topic, NewPartitions.increaseTo(6, List.of(List.of(1))));
        growth("assigned to nobody", topic, NewPartitions.increaseTo(7, List.of(List.of(99))));
        growth("too few assigned", topic, NewPartitions.increaseTo(9, List.of(List.of(1))));
        transcript.call("only validated", () -> Transcript.get(admin.createPartitions(
            Map.of(topic, NewPartitions.increaseTo(50)),
            new CreatePartitionsOptions().validateOnly(true)).all()));
        transcript.await("shown at last", "6", () -> named(topic).partitions().size());
    }

    private void growth(String what, String name, NewPartitions to) {
        transcript.call(what, () -> Transcript.get(admin.createPartitions(Map.of(name, to)).all()));
    }

    void configure() {
        var resource = new ConfigResource(Type.TOPIC, topic);
        transcript.section("describeConfigs", 32);
        transcript.call("topic", () -> entries(resource, entry -> true, true));
        transcript.call("unknown topic", () -> entries(
            new ConfigResource(Type.TOPIC, transcript.name("unknown")), entry -> true, false));
        transcript.call("bad name", () ->
            entries(new ConfigResource(Type.TOPIC, "a/b"), entry -> true, false));
        transcript.call("broker", () -> entries(new ConfigResource(Type.BROKER, "1"),
            entry -> BROKER_KEYS.contains(entry.name()), true));
        transcript.call("documented", () -> {
            var options = new DescribeConfigsOptions().includeDocumentation(true);
            var all = Transcript.get(admin.describeConfigs(List.of(resource), options).all());
            return all.get(resource).entries().stream().allMatch(entry ->
                entry.documentation() != null && !entry.documentation().isEmpty());
        });

        transcript.section("incrementalAlterConfigs", 44);
        alteration("set", resource, operation("retention.ms", "3600000", OpType.SET));
        shown(resource, "retention.ms=3600000 DYNAMIC_TOPIC_CONFIG", "retention.ms");
        alteration("delete", resource, operation("retention.ms", null, OpType.DELETE));
        shown(resource, "retention.ms=604800000 DEFAULT_CONFIG", "retention.ms");
        alteration("delete what is not set", resource,
            operation("segment.ms", null, OpType.DELETE));
        alteration("append", resource, operation("cleanup.policy", "compact", OpType.APPEND));
        shown(resource, "cleanup.policy=delete,compact DYNAMIC_TOPIC_CONFIG", "cleanup.policy");
        alteration("append again", resource, operation("cleanup.policy", "compact", OpType.APPEND));
        alteration("subtract", resource, operation("cleanup.policy", "compact", OpType.SUBTRACT));
        shown(resource, "cleanup.policy=delete DYNAMIC_TOPIC_CONFIG", "cleanup.policy");
        alteration("append to a number", resource,
            operation("retention.ms", "1", OpType.APPEND));
        alteration("unknown key", resource, operation("no.such.key", "1", OpType.SET));
        alteration("bad value", resource, operation("retention.ms", "soon", OpType.SET));
        alteration("too small", resource, operation("segment.bytes", "1000", OpType.SET));
        alteration("twice", resource, operation("retention.ms", "1000", OpType.SET),
            operation("retention.ms", "2000", OpType.SET));
        alteration("unknown topic",
            new ConfigResource(Type.TOPIC, transcript.name("unknown")),
            operation("retention.ms", "1000", OpType.SET));
        transcript.call("only validated", () -> Transcript.get(admin.incrementalAlterConfigs(
            Map.of(resource, List.of(operation("retention.ms", "1000", OpType.SET))),
            new AlterConfigsOptions().validateOnly(true)).all()));
        shown(resource, "retention.ms=604800000 DEFAULT_CONFIG", "retention.ms");
    }

    void configureBrokers() {
        var all = new ConfigResource(Type.BROKER, "");
        var one = new ConfigResource(Type.BROKER, "1");
        alteration("broker default", all, operation("log.retention.ms", "86400000", OpType.SET));
        shown(all, "log.retention.ms=86400000 DYNAMIC_DEFAULT_BROKER_CONFIG", "log.retention.ms");
        alteration("broker", one, operation("log.retention.ms", "43200000", OpType.SET));
        shown(one, "log.retention.ms=43200000 DYNAMIC_BROKER_CONFIG", "log.retention.ms");
        alteration("broker delete", one, operation("log.retention.ms", null, OpType.DELETE));
        shown(one, "log.retention.ms=86400000 DYNAMIC_DEFAULT_BROKER_CONFIG", "log.retention.ms");
        alteration("broker default delete", all, operation("log.retention.ms", null, OpType.DELETE));
        alteration("read only", one, operation("process.roles", "broker", OpType.SET));
        alteration("broker bad value", one, operation("log.retention.ms", "soon", OpType.SET));

        transcript.section("listConfigResources", 74);
        transcript.await("topics", "[ours-assigned, ours-compacted, ours-defaults, ours-topic]",
            () -> Transcript.sorted(listed(Set.of(Type.TOPIC))));
        transcript.call("brokers", () -> Transcript.sorted(
            Transcript.get(admin.listConfigResources(Set.of(Type.BROKER),
                new org.apache.kafka.clients.admin.ListConfigResourcesOptions()).all())));
        transcript.call("groups", () -> Transcript.sorted(listed(Set.of(Type.GROUP))));
        transcript.call("client metrics", () ->
            Transcript.sorted(listed(Set.of(Type.CLIENT_METRICS))));
        for (Type type : List.of(Type.GROUP, Type.CLIENT_METRICS)) {
            transcript.section("describeConfigs of " + type, 32);
            transcript.call("unknown", () -> entries(
                new ConfigResource(type, transcript.name("unknown")), entry -> true, false));
        }
    }

    private List<String> listed(Set<Type> types) throws Exception {
        var options = new org.apache.kafka.clients.admin.ListConfigResourcesOptions();
        return Transcript.get(admin.listConfigResources(types, options).all()).stream()
            .map(ConfigResource::name).filter(transcript::isOurs).toList();
    }

    private static AlterConfigOp operation(String key, String value, OpType type) {
        return new AlterConfigOp(new ConfigEntry(key, value), type);
    }

    private void alteration(String what, ConfigResource resource, AlterConfigOp... operations) {
        Map<ConfigResource, Collection<AlterConfigOp>> changes =
            Map.of(resource, List.of(operations));
        transcript.call(what, () -> Transcript.get(admin.incrementalAlterConfigs(changes).all()));
    }

    /** Waits until a change shows: Kafka answers it before. */
    private void shown(ConfigResource resource, String expected, String key) {
        transcript.await("shown", expected, () -> {
            ConfigEntry entry = Transcript.get(admin.describeConfigs(List.of(resource)).all())
                .get(resource).get(key);
            return entry == null ? "none" : key + "=" + entry.value() + " " + entry.source();
        });
    }

    private String entries(
            ConfigResource resource, java.util.function.Predicate<ConfigEntry> wanted,
            boolean synonyms) throws Exception {
        var options = new DescribeConfigsOptions().includeSynonyms(synonyms);
        var all = Transcript.get(admin.describeConfigs(List.of(resource), options).all());
        return all.get(resource).entries().stream().filter(wanted)
            .map(entry -> "\n" + entry.name() + "=" + entry.value() + " " + entry.source() + " "
                + entry.type() + (entry.isReadOnly() ? " read-only" : "")
                + (entry.isSensitive() ? " sensitive" : "") + " " + entry.synonyms())
            .sorted().collect(Collectors.joining());
    }

    void delete() {
        transcript.section("deleteTopics", 20);
        transcript.call("by id", () -> {
            Uuid id = named(transcript.name("assigned")).topicId();
            return Transcript.get(admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all());
        });
        transcript.call("by name", () -> Transcript.get(admin.deleteTopics(List.of(topic,
            transcript.name("defaults"), transcript.name("compacted"))).all()));
        transcript.await("left", "[]", () -> Transcript.sorted(
            Transcript.get(admin.listTopics().names()).stream()
                .filter(transcript::isOurs).toList()));
        transcript.call("again", () -> Transcript.get(admin.deleteTopics(List.of(topic)).all()));
        transcript.call("unknown id", () -> Transcript.get(admin.deleteTopics(
            TopicCollection.ofTopicIds(List.of(new Uuid(1, 2)))).all()));
    }
}
