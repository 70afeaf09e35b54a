import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.admin.AbortTransactionSpec;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.DescribeClusterOptions;
import org.apache.kafka.clients.admin.FeatureUpdate;
import org.apache.kafka.clients.admin.ListShareGroupOffsetsSpec;
import org.apache.kafka.clients.admin.ListStreamsGroupOffsetsSpec;
import org.apache.kafka.clients.admin.RaftVoterEndpoint;
import org.apache.kafka.clients.admin.ScramCredentialInfo;
import org.apache.kafka.clients.admin.ScramMechanism;
import org.apache.kafka.clients.admin.UpdateFeaturesOptions;
import org.apache.kafka.clients.admin.UserScramCredentialDeletion;
import org.apache.kafka.clients.admin.UserScramCredentialUpsertion;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.quota.ClientQuotaAlteration;
import org.apache.kafka.common.quota.ClientQuotaEntity;
import org.apache.kafka.common.quota.ClientQuotaFilter;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;

/** The cluster itself, security, transactions, and the newer kinds of groups. */
final class AdminCluster {
    private final Admin admin;
    private final Transcript transcript;
    private final TopicPartition partition;

    AdminCluster(Admin admin, Transcript transcript) {
        this.admin = admin;
        this.transcript = transcript;
        this.partition = new TopicPartition(transcript.name("topic"), 0);
    }

    void describe() {
        transcript.section("describeCluster", 60);
        transcript.call("nodes", () -> Transcript.get(admin.describeCluster().nodes()));
        transcript.call("controller", () -> Transcript.get(admin.describeCluster().controller()));
        transcript.call("has an id", () ->
            !Transcript.get(admin.describeCluster().clusterId()).isEmpty());
        transcript.call("operations", () -> Transcript.sorted(Transcript.get(
            admin.describeCluster(new DescribeClusterOptions().includeAuthorizedOperations(true))
                .authorizedOperations())));

        transcript.section("describeMetadataQuorum", 55);
        transcript.call("quorum", () -> {
            var quorum = Transcript.get(admin.describeMetadataQuorum().quorumInfo());
            return "leader " + quorum.leaderId() + " epoch " + (quorum.leaderEpoch() > 0)
                + " high watermark " + (quorum.highWatermark() > 0) + " voters "
                + quorum.voters().stream().map(voter -> voter.replicaId()).toList()
                + " observers " + quorum.observers();
        });
        transcript.section("addRaftVoter", 80);
        transcript.call("voter", () -> Transcript.get(admin.addRaftVoter(2, new Uuid(1, 2),
            Set.of(new RaftVoterEndpoint("CONTROLLER", "127.0.0.1", 1))).all()));
        transcript.section("removeRaftVoter", 81);
        transcript.call("voter", () ->
            Transcript.get(admin.removeRaftVoter(2, new Uuid(1, 2)).all()));
        transcript.section("unregisterBroker", 64);
        transcript.call("unknown", () -> Transcript.get(admin.unregisterBroker(99).all()));
        transcript.section("updateFeatures", 57);
        transcript.call("unknown", () -> {
            var change = new FeatureUpdate((short) 1, FeatureUpdate.UpgradeType.UPGRADE);
            var options = new UpdateFeaturesOptions().validateOnly(true);
            return Transcript.get(
                admin.updateFeatures(Map.of("no.such.feature", change), options).all());
        });
        transcript.section("clientInstanceId", 71);
        transcript.call("id", () -> admin.clientInstanceId(Duration.ofSeconds(5)));
    }

    void security() {
        var binding = new AclBinding(
            new ResourcePattern(ResourceType.TOPIC, partition.topic(), PatternType.LITERAL),
            new AccessControlEntry("User:nobody", "*", AclOperation.READ, AclPermissionType.DENY));
        transcript.section("describeAcls", 29);
        transcript.call("any", () -> Transcript.get(
            admin.describeAcls(AclBindingFilter.ANY).values()));
        transcript.section("createAcls", 30);
        transcript.call("one", () -> Transcript.get(admin.createAcls(List.of(binding)).all()));
        transcript.section("deleteAcls", 31);
        transcript.call("one", () -> Transcript.get(
            admin.deleteAcls(List.of(binding.toFilter())).all()));

        transcript.section("describeClientQuotas", 48);
        transcript.call("all", () -> Transcript.get(
            admin.describeClientQuotas(ClientQuotaFilter.all()).entities()));
        transcript.section("alterClientQuotas", 49);
        transcript.call("bad", () -> Transcript.get(admin.alterClientQuotas(List.of(
            new ClientQuotaAlteration(
                new ClientQuotaEntity(Map.of("client-id", transcript.name("client"))),
                List.of(new ClientQuotaAlteration.Op("no.such.quota", 1.0))))).all()));

        transcript.section("describeUserScramCredentials", 50);
        transcript.call("unknown", () -> Transcript.get(
            admin.describeUserScramCredentials(List.of("nobody")).all()));
        transcript.section("alterUserScramCredentials", 51);
        transcript.call("delete unknown", () -> Transcript.get(
            admin.alterUserScramCredentials(List.of(
                new UserScramCredentialDeletion("nobody", ScramMechanism.SCRAM_SHA_256))).all()));
        transcript.call("too few iterations", () -> Transcript.get(
            admin.alterUserScramCredentials(List.of(new UserScramCredentialUpsertion("nobody",
                new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 1), "password"))).all()));

        transcript.section("createDelegationToken", 38);
        transcript.call("token", () ->
            Transcript.get(admin.createDelegationToken().delegationToken()));
        transcript.section("renewDelegationToken", 39);
        transcript.call("token", () -> Transcript.get(
            admin.renewDelegationToken(new byte[] {1}).expiryTimestamp()));
        transcript.section("expireDelegationToken", 40);
        transcript.call("token", () -> Transcript.get(
            admin.expireDelegationToken(new byte[] {1}).expiryTimestamp()));
        transcript.section("describeDelegationToken", 41);
        transcript.call("tokens", () ->
            Transcript.get(admin.describeDelegationToken().delegationTokens()));
    }

    void transactions() {
        transcript.section("listTransactions", 66);
        transcript.call("ours", () -> Transcript.get(admin.listTransactions().all()).stream()
            .filter(listing -> transcript.isOurs(listing.transactionalId())).toList());
        transcript.section("describeTransactions", 65);
        transcript.call("unknown", () -> Transcript.get(
            admin.describeTransactions(List.of(transcript.name("unknown"))).all()));
        transcript.section("abortTransaction", 27);
        transcript.call("unknown", () -> Transcript.get(admin.abortTransaction(
            new AbortTransactionSpec(partition, 1_000_000, (short) 0, 0)).all()));
        transcript.section("fenceProducers", 22, 24);
        transcript.call("fresh", () -> Transcript.get(
            admin.fenceProducers(List.of(transcript.name("fenced"))).all()));
        transcript.section("forceTerminateTransaction", 22, 24);
        transcript.call("fresh", () -> Transcript.get(
            admin.forceTerminateTransaction(transcript.name("ended")).result()));
    }

    void newerGroups() {
        String group = transcript.name("newer");
        transcript.section("describeShareGroups", 77);
        transcript.call("unknown", () ->
            Transcript.get(admin.describeShareGroups(List.of(group)).all()));
        transcript.section("listShareGroupOffsets", 90);
        transcript.call("unknown", () -> Transcript.get(admin.listShareGroupOffsets(
            Map.of(group, new ListShareGroupOffsetsSpec())).all()));
        transcript.section("alterShareGroupOffsets", 91);
        transcript.call("unknown topic", () -> Transcript.get(admin.alterShareGroupOffsets(
            group, Map.of(new TopicPartition(transcript.name("unknown"), 0), 1L)).all()));
        transcript.section("deleteShareGroupOffsets", 92);
        transcript.call("unknown", () -> Transcript.get(
            admin.deleteShareGroupOffsets(group, Set.of(partition.topic())).all()));
        transcript.section("deleteShareGroups", 10, 42);
        transcript.call("unknown", () ->
            Transcript.get(admin.deleteShareGroups(List.of(group)).all()));
        transcript.section("describeStreamsGroups", 89);
        transcript.call("unknown", () ->
            Transcript.get(admin.describeStreamsGroups(List.of(group)).all()));
        transcript.section("listStreamsGroupOffsets", 9, 10);
        transcript.call("unknown", () -> Transcript.get(admin.listStreamsGroupOffsets(
            Map.of(group, new ListStreamsGroupOffsetsSpec())).all()));
        transcript.section("deleteStreamsGroupOffsets", 10, 47);
        transcript.call("unknown", () -> Transcript.get(
            admin.deleteStreamsGroupOffsets(group, Set.of(partition)).all()));
        transcript.section("deleteStreamsGroups", 10, 42);
        transcript.call("unknown", () ->
            Transcript.get(admin.deleteStreamsGroups(List.of(group)).all()));
    }
}
