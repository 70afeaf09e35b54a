package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
)

// saramaRun is one way to produce and to read back.
type saramaRun struct {
	name       string
	codec      sarama.CompressionCodec
	acks       sarama.RequiredAcks
	idempotent bool
	version    sarama.KafkaVersion
}

func saramaConfig(version sarama.KafkaVersion) *sarama.Config {
	config := sarama.NewConfig()
	config.Version = version
	config.Consumer.Return.Errors = true
	// A reader ends only after the Fetch that is under way.
	config.Consumer.MaxWaitTime = 20 * time.Millisecond
	config.Producer.Return.Successes = true
	config.Producer.Return.Errors = true
	return config
}

func saramaExchange(bootstrap string) {
	all, leader := sarama.WaitForAll, sarama.WaitForLocal
	old, newest := sarama.V0_11_0_0, sarama.MaxVersion
	for _, run := range []saramaRun{
		{"none", sarama.CompressionNone, all, true, newest},
		{"gzip", sarama.CompressionGZIP, all, true, newest},
		{"snappy", sarama.CompressionSnappy, all, true, newest},
		{"lz4", sarama.CompressionLZ4, all, true, newest},
		{"zstd", sarama.CompressionZSTD, all, true, newest},
		{"acks-0", sarama.CompressionLZ4, sarama.NoResponse, false, newest},
		{"acks-1", sarama.CompressionZSTD, leader, false, newest},
		{"of-0.11", sarama.CompressionGZIP, all, true, old},
		{"of-0.11-acks-1", sarama.CompressionSnappy, leader, false, old},
		{"of-2.4", sarama.CompressionZSTD, all, true, sarama.V2_4_0_0},
	} {
		topic := unique("sarama-" + run.name)
		config := saramaConfig(run.version)
		config.Producer.Compression = run.codec
		config.Producer.RequiredAcks = run.acks
		config.Producer.Idempotent = run.idempotent
		if run.idempotent {
			config.Net.MaxOpenRequests = 1
		}
		config.Producer.Partitioner = sarama.NewManualPartitioner
		config.Producer.Flush.Frequency = 5 * time.Millisecond
		client, err := sarama.NewClient([]string{bootstrap}, config)
		must(err, "creating a client")
		saramaCreate(client, topic)
		saramaProduce(client, topic, run)
		saramaRead(client, topic)
		must(client.Close(), "closing")
		ok("sarama %s", run.name)
	}
}

func saramaCreate(client sarama.Client, topic string) {
	admin, err := sarama.NewClusterAdminFromClient(client)
	must(err, "creating an admin client")
	detail := sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1}
	must(admin.CreateTopic(topic, &detail, false), "creating "+topic)
	// With acks=0 a partition without a leader loses records without a word.
	for p := range partitions {
		await("a leader of "+topic, func() bool {
			end, err := client.GetOffset(topic, int32(p), sarama.OffsetNewest)
			require(err != nil || end == 0, "%s [%d] ends at %d", topic, p, end)
			return err == nil
		})
	}
}

func saramaProduce(client sarama.Client, topic string, run saramaRun) {
	producer, err := sarama.NewSyncProducerFromClient(client)
	must(err, "creating a producer")
	var batch []*sarama.ProducerMessage
	for i := range records {
		message := &sarama.ProducerMessage{Topic: topic, Partition: int32(i % partitions),
			Key: sarama.StringEncoder(key(i)), Value: sarama.StringEncoder(value(i)),
			Timestamp: time.UnixMilli(timestamp(i))}
		for _, h := range headers(i) {
			pair := sarama.RecordHeader{Key: []byte(h.name), Value: []byte(h.value)}
			message.Headers = append(message.Headers, pair)
		}
		batch = append(batch, message)
	}
	must(producer.SendMessages(batch), "producing to "+topic)
	for i, message := range batch {
		if run.acks != sarama.NoResponse {
			n := int64(i / partitions)
			require(message.Offset == n, "%s: %d has offset %d", topic, i, message.Offset)
		}
	}
	must(producer.Close(), "closing the producer")
}

func saramaRead(client sarama.Client, topic string) {
	consumer, err := sarama.NewConsumerFromClient(client)
	must(err, "creating a consumer")
	for p := range partitions {
		saramaTake(consumer, topic, p, 0, perPart)
		saramaTake(consumer, topic, p, perPart/2, 5)
		end, err := client.GetOffset(topic, int32(p), sarama.OffsetNewest)
		must(err, "end offset")
		require(end == perPart, "%s [%d] ends at %d", topic, p, end)
		checkTimes(topic, p, func(timestamp int64) int64 {
			offset, err := client.GetOffset(topic, int32(p), timestamp)
			must(err, "offset by time")
			return offset
		})
	}
	must(consumer.Close(), "closing the consumer")
}

// saramaTake reads count offsets of one partition, from start on.
func saramaTake(consumer sarama.Consumer, topic string, p, start, count int) {
	reader, err := consumer.ConsumePartition(topic, int32(p), int64(start))
	must(err, "reading "+topic)
	timeout := time.After(deadline)
	for n := start; n < start+count; n++ {
		select {
		case message := <-reader.Messages():
			checkRecord(topic, p, n, saramaRecord(message))
		case failure := <-reader.Errors():
			fail("%s [%d]: %v", topic, p, failure)
		case <-timeout:
			fail("%s [%d]: nothing at offset %d", topic, p, n)
		}
	}
	must(reader.Close(), "closing a reader")
}

func saramaRecord(m *sarama.ConsumerMessage) record {
	got := record{m.Offset, m.Timestamp.UnixMilli(), string(m.Key), string(m.Value), nil}
	for _, h := range m.Headers {
		got.headers = append(got.headers, header{string(h.Key), string(h.Value)})
	}
	return got
}

// saramaHandler tells what one generation of a member owns and reads.
type saramaHandler struct {
	account *account
	topic   string
}

func (h saramaHandler) Setup(session sarama.ConsumerGroupSession) error {
	h.account.owns(session.Claims()[h.topic], nil)
	return nil
}

func (h saramaHandler) Cleanup(session sarama.ConsumerGroupSession) error {
	h.account.owns(nil, session.Claims()[h.topic])
	return nil
}

func (h saramaHandler) ConsumeClaim(
	session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim,
) error {
	for message := range claim.Messages() {
		h.account.read(message.Partition, saramaRecord(message))
		session.MarkMessage(message, "")
		if message.Offset+1 == claim.HighWaterMarkOffset() {
			h.account.flush()
			session.Commit()
		}
	}
	return nil
}

func saramaMember(m membership) {
	version := sarama.MaxVersion
	if m.oldVersions {
		version = sarama.V0_11_0_0
	}
	config := saramaConfig(version)
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = false
	config.Consumer.Group.Session.Timeout = 10 * time.Second
	config.Consumer.Group.Heartbeat.Interval = 500 * time.Millisecond
	strategy := sarama.NewBalanceStrategySticky()
	if m.rangeStrategy {
		strategy = sarama.NewBalanceStrategyRange()
	}
	config.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{strategy}
	group, err := sarama.NewConsumerGroup([]string{m.bootstrap}, m.group, config)
	must(err, "creating a member")
	ctx, leave := context.WithCancel(context.Background())
	untilInputEnds(leave)
	go func() {
		for failure := range group.Errors() {
			fail("member: %v", failure)
		}
	}()
	handler := saramaHandler{newAccount(), m.topic}
	for ctx.Err() == nil {
		err := group.Consume(ctx, []string{m.topic}, handler)
		require(err == nil || errors.Is(err, context.Canceled), "consuming: %v", err)
	}
	must(group.Close(), "leaving")
}

func saramaAdmin(bootstrap string) sarama.ClusterAdmin {
	admin, err := sarama.NewClusterAdmin([]string{bootstrap}, saramaConfig(sarama.MaxVersion))
	must(err, "creating an admin client")
	return admin
}

func saramaDescribe(bootstrap, group, topic string) {
	admin := saramaAdmin(bootstrap)
	listed, err := admin.ListConsumerGroups()
	must(err, "listing groups")
	require(listed[group] == "consumer", "%s is not listed: %v", group, listed)
	ok("list groups")

	described, err := admin.DescribeConsumerGroups([]string{group})
	must(err, "describing "+group)
	require(described[0].State == "Stable", "state of %s: %v", group, described[0].State)
	topics, err := admin.DescribeTopics([]string{topic})
	must(err, "describing "+topic)
	owned := 0
	for _, member := range described[0].Members {
		assignment, err := member.GetMemberAssignment()
		must(err, "an assignment")
		owned += len(assignment.Topics[topic])
	}
	require(owned == len(topics[0].Partitions), "%s owns %d partitions", group, owned)
	ok("describe group")

	committed, err := admin.ListConsumerGroupOffsets(group, nil)
	must(err, "committed offsets")
	client, err := sarama.NewClient([]string{bootstrap}, saramaConfig(sarama.MaxVersion))
	must(err, "creating a client")
	for _, p := range topics[0].Partitions {
		end, err := client.GetOffset(topic, p.ID, sarama.OffsetNewest)
		must(err, "end offset")
		block := committed.GetBlock(topic, p.ID)
		require(block != nil && block.Offset == end, "committed %v, end %d", block, end)
	}
	ok("committed offsets")
	saramaConfigs(admin, topic)
	must(client.Close(), "closing")
	must(admin.Close(), "closing")
}

func saramaConfigs(admin sarama.ClusterAdmin, topic string) {
	retention := func() string {
		asked := sarama.ConfigResource{Type: sarama.TopicResource, Name: topic}
		entries, err := admin.DescribeConfig(asked)
		must(err, "configs")
		for _, entry := range entries {
			if entry.Name == "retention.ms" {
				return fmt.Sprintf("%s %t", entry.Value, entry.Default)
			}
		}
		return "none"
	}
	await("retention", func() bool { return retention() == "604800000 true" })
	alter := func(operation sarama.IncrementalAlterConfigsOperation, value *string) {
		change := map[string]sarama.IncrementalAlterConfigsEntry{
			"retention.ms": {Operation: operation, Value: value}}
		must(admin.IncrementalAlterConfig(sarama.TopicResource, topic, change, false), "altering")
	}
	hours := "7200000"
	alter(sarama.IncrementalAlterConfigsOperationSet, &hours)
	await("retention", func() bool { return retention() == "7200000 false" })
	// The older call replaces the whole configuration: an empty one restores the defaults.
	must(admin.AlterConfig(sarama.TopicResource, topic, nil, false), "altering")
	await("retention", func() bool { return retention() == "604800000 true" })
	ok("configs")
}

func saramaDelete(bootstrap, group, topic string) {
	admin := saramaAdmin(bootstrap)
	must(admin.DeleteConsumerGroup(group), "deleting "+group)
	listed, err := admin.ListConsumerGroups()
	must(err, "listing groups")
	_, still := listed[group]
	require(!still, "%s is still listed", group)
	ok("delete group")

	must(admin.DeleteTopic(topic), "deleting "+topic)
	topics, err := admin.ListTopics()
	must(err, "listing topics")
	_, still = topics[topic]
	require(!still, "%s is still listed", topic)
	ok("delete topic")
	must(admin.Close(), "closing")
}
