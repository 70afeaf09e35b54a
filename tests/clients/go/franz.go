package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"
)

// franzRun is one way to produce and to read back.
type franzRun struct {
	name       string
	codec      kgo.CompressionCodec
	acks       kgo.Acks
	idempotent bool
	versions   *kversion.Versions
}

func franzClient(bootstrap string, options ...kgo.Opt) *kgo.Client {
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(bootstrap))...)
	must(err, "creating a client")
	return client
}

func franzExchange(bootstrap string) {
	all, old := kgo.AllISRAcks(), kversion.V0_11_0()
	for _, run := range []franzRun{
		{"none", kgo.NoCompression(), all, true, nil},
		{"gzip", kgo.GzipCompression(), all, true, nil},
		{"snappy", kgo.SnappyCompression(), all, true, nil},
		{"lz4", kgo.Lz4Compression(), all, true, nil},
		{"zstd", kgo.ZstdCompression(), all, true, nil},
		{"acks-0", kgo.Lz4Compression(), kgo.NoAck(), false, nil},
		{"acks-1", kgo.ZstdCompression(), kgo.LeaderAck(), false, nil},
		{"of-0.11", kgo.SnappyCompression(), all, true, old},
		{"of-0.11-acks-1", kgo.GzipCompression(), kgo.LeaderAck(), false, old},
		{"of-2.4", kgo.ZstdCompression(), all, true, kversion.V2_4_0()},
	} {
		topic := unique("franz-" + run.name)
		franzCreate(bootstrap, topic)
		franzProduce(bootstrap, topic, run)
		franzRead(bootstrap, topic, run)
		ok("franz-go %s", run.name)
	}
}

func franzCreate(bootstrap, topic string) {
	client := franzClient(bootstrap)
	defer client.Close()
	admin := kadm.NewClient(client)
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	_, err := admin.CreateTopic(ctx, partitions, 1, nil, topic)
	must(err, "creating "+topic)
	// With acks=0 a partition without a leader loses records without a word.
	await("leaders of "+topic, func() bool {
		ends, err := admin.ListEndOffsets(ctx, topic)
		must(err, "end offsets")
		ends.Each(func(end kadm.ListedOffset) { require(end.Offset < 1, "%s is not empty", topic) })
		return ends.Error() == nil && len(ends.Offsets()[topic]) == partitions
	})
}

// versioned gives what limits a client to the versions of an older Kafka.
func versioned(versions *kversion.Versions) []kgo.Opt {
	if versions == nil {
		return nil
	}
	return []kgo.Opt{kgo.MaxVersions(versions)}
}

func franzProduce(bootstrap, topic string, run franzRun) {
	options := append(versioned(run.versions),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RequiredAcks(run.acks),
		kgo.ProducerBatchCompression(run.codec), kgo.ProducerLinger(5*time.Millisecond))
	if !run.idempotent {
		options = append(options, kgo.DisableIdempotentWrite())
	}
	client := franzClient(bootstrap, options...)
	defer client.Close()
	var batch []*kgo.Record
	for i := range records {
		r := &kgo.Record{Topic: topic, Partition: int32(i % partitions), Key: []byte(key(i)),
			Value: []byte(value(i)), Timestamp: time.UnixMilli(timestamp(i))}
		for _, h := range headers(i) {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.name, Value: []byte(h.value)})
		}
		batch = append(batch, r)
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	for i, result := range client.ProduceSync(ctx, batch...) {
		must(result.Err, "producing to "+topic)
		if run.acks != kgo.NoAck() {
			// Results come in the order of completion, so the record itself says which it is.
			got := result.Record
			n := (got.Timestamp.UnixMilli() - startMs) / stepMs / partitions
			require(got.Offset == n, "%s: result %d has offset %d, not %d", topic, i, got.Offset, n)
		}
	}
}

func franzRead(bootstrap, topic string, run franzRun) {
	client := franzClient(bootstrap, versioned(run.versions)...)
	defer client.Close()
	admin := kadm.NewClient(client)
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	for p := range partitions {
		franzTake(client, topic, p, 0, perPart)
		franzTake(client, topic, p, perPart/2, 5)
		checkTimes(topic, p, func(timestamp int64) int64 {
			found, err := admin.ListOffsetsAfterMilli(ctx, timestamp, topic)
			must(err, "offsets by time")
			offset, listed := found.Lookup(topic, int32(p))
			require(listed, "offset of %s [%d]", topic, p)
			must(offset.Err, "offset by time")
			if offset.Timestamp == -1 {
				return -1 // This client says "the end" for "none".
			}
			return offset.Offset
		})
	}
}

// franzTake reads count offsets of one partition, from start on.
func franzTake(client *kgo.Client, topic string, p, start, count int) {
	from := kgo.NewOffset().At(int64(start))
	client.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: {int32(p): from}})
	defer client.RemoveConsumePartitions(map[string][]int32{topic: {int32(p)}})
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	for n := start; n < start+count; {
		fetches := client.PollFetches(ctx)
		must(fetches.Err(), "reading "+topic)
		fetches.EachRecord(func(r *kgo.Record) {
			checkRecord(topic, p, n, franzRecord(r))
			n++
		})
	}
}

func franzRecord(r *kgo.Record) record {
	got := record{r.Offset, r.Timestamp.UnixMilli(), string(r.Key), string(r.Value), nil}
	for _, h := range r.Headers {
		got.headers = append(got.headers, header{h.Key, string(h.Value)})
	}
	return got
}

func franzMember(m membership) {
	account := newAccount()
	changed := func(added bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, changes map[string][]int32) {
			if added {
				account.owns(changes[m.topic], nil)
			} else {
				account.owns(nil, changes[m.topic])
			}
		}
	}
	options := []kgo.Opt{
		kgo.ConsumerGroup(m.group), kgo.ConsumeTopics(m.topic), kgo.DisableAutoCommit(),
		kgo.SessionTimeout(10 * time.Second), kgo.HeartbeatInterval(500 * time.Millisecond),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.OnPartitionsAssigned(changed(true)),
		kgo.OnPartitionsRevoked(changed(false)), kgo.OnPartitionsLost(changed(false)),
	}
	if m.rangeStrategy {
		options = append(options, kgo.Balancers(kgo.RangeBalancer()))
	}
	if m.oldVersions {
		options = append(options, kgo.MaxVersions(kversion.V0_11_0()))
	}
	client := franzClient(m.bootstrap, options...)
	ctx, leave := context.WithCancel(context.Background())
	untilInputEnds(leave)
	for {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			break
		}
		must(fetches.Err(), "reading "+m.topic)
		fetches.EachRecord(func(r *kgo.Record) { account.read(r.Partition, franzRecord(r)) })
		account.flush()
		err := client.CommitUncommittedOffsets(ctx)
		require(err == nil || errors.Is(err, context.Canceled), "committing: %v", err)
	}
	client.Close()
}

func franzDescribe(bootstrap, group, topic string) {
	client := franzClient(bootstrap)
	defer client.Close()
	admin := kadm.NewClient(client)
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()

	listed, err := admin.ListGroups(ctx)
	must(err, "listing groups")
	require(listed[group].ProtocolType == "consumer", "%s is not listed: %v", group, listed)
	require(listed[group].State == "Stable", "state of %s: %v", group, listed[group])
	ok("list groups")

	described, err := admin.DescribeGroups(ctx, group)
	must(err, "describing "+group)
	one := described[group]
	must(one.Err, "describing "+group)
	owned := one.AssignedPartitions()[topic]
	ends, err := admin.ListEndOffsets(ctx, topic)
	must(err, "end offsets")
	require(len(owned) == len(ends.Offsets()[topic]), "%s owns %v", group, owned)
	require(one.State == "Stable", "state of %s: %v", group, one)
	ok("describe group")

	committed, err := admin.FetchOffsets(ctx, group)
	must(err, "committed offsets")
	ends.Each(func(end kadm.ListedOffset) {
		at, found := committed.Lookup(topic, end.Partition)
		require(found && at.At == end.Offset, "committed %v of %v", at, end)
	})
	ok("committed offsets")

	franzConfigs(ctx, admin, topic)
}

func franzConfigs(ctx context.Context, admin *kadm.Client, topic string) {
	retention := func() string {
		resources, err := admin.DescribeTopicConfigs(ctx, topic)
		must(err, "configs")
		resource, err := resources.On(topic, nil)
		must(err, "configs of "+topic)
		at := slices.IndexFunc(resource.Configs, func(c kadm.Config) bool {
			return c.Key == "retention.ms"
		})
		require(at >= 0, "no retention.ms in %v", resource)
		return resource.Configs[at].MaybeValue()
	}
	await("retention", func() bool { return retention() == "604800000" })
	alter := func(op kadm.IncrementalOp, value *string) {
		change := []kadm.AlterConfig{{Op: op, Name: "retention.ms", Value: value}}
		altered, err := admin.AlterTopicConfigs(ctx, change, topic)
		must(err, "altering")
		_, err = altered.On(topic, func(r *kadm.AlterConfigsResponse) error { return r.Err })
		must(err, "altering")
	}
	alter(kadm.SetConfig, kadm.StringPtr("7200000"))
	await("retention", func() bool { return retention() == "7200000" })
	alter(kadm.DeleteConfig, nil)
	await("retention", func() bool { return retention() == "604800000" })
	ok("configs")
}

func franzDelete(bootstrap, group, topic string) {
	client := franzClient(bootstrap)
	defer client.Close()
	admin := kadm.NewClient(client)
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()

	_, err := admin.DeleteGroup(ctx, group)
	must(err, "deleting "+group)
	listed, err := admin.ListGroups(ctx)
	must(err, "listing groups")
	require(!slices.Contains(listed.Groups(), group), "%s is still listed", group)
	ok("delete group")

	deleted, err := admin.DeleteTopic(ctx, topic)
	must(err, "deleting "+topic)
	must(deleted.Err, "deleting "+topic)
	topics, err := admin.ListTopics(ctx)
	must(err, "listing topics")
	require(!topics.Has(topic), "%s is still listed", topic)
	ok("delete topic")
}
