'use strict';

// kafkajs: every codec, every acks, idempotence, groups, administration.
//
//   node kafkajs.js exchange BOOTSTRAP
//   node kafkajs.js member BOOTSTRAP GROUP TOPIC default|range new
//   node kafkajs.js describe BOOTSTRAP GROUP TOPIC
//   node kafkajs.js delete BOOTSTRAP GROUP TOPIC

const assert = require('node:assert');
const { randomUUID } = require('node:crypto');
const kafkajs = require('kafkajs');
const snappy = require('kafkajs-snappy');
const lz4 = require('lz4-napi');
const { ZstdCodec } = require('zstd-codec');
const member = require('./member.js');

const { CompressionTypes, CompressionCodecs, ConfigResourceTypes, Kafka, logLevel } = kafkajs;
const PARTITIONS = 3;
const RECORDS = 300;
const PER_PARTITION = RECORDS / PARTITIONS;
const START_MS = Date.now() - 3_600_000;
const STEP_MS = 1_000;

// What a user of this library adds for the codecs that it does not bring.
CompressionCodecs[CompressionTypes.Snappy] = snappy;
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async (encoder) => lz4.compressFrame(encoder.buffer),
  decompress: async (buffer) => lz4.decompressFrame(buffer),
});
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async (encoder) => Buffer.from((await zstd()).compress(encoder.buffer)),
  decompress: async (buffer) => Buffer.from((await zstd()).decompress(buffer)),
});

function zstd() {
  return new Promise((resolve) => ZstdCodec.run((codec) => resolve(new codec.Simple())));
}

function client(bootstrap) {
  return new Kafka({ brokers: [bootstrap], logLevel: logLevel.ERROR });
}

const key = (i) => `key-${i}`;
const timestamp = (i) => START_MS + i * STEP_MS;

// Of many lengths, some worth compressing; every 50th is empty.
const value = (i) => (i % 50 === 49 ? '' : `value-${i}-${'x'.repeat((i * 7) % 500)}`);

async function exchange(bootstrap) {
  const runs = [
    { codec: 'None', acks: -1, idempotent: true },
    { codec: 'GZIP', acks: -1, idempotent: true },
    { codec: 'Snappy', acks: -1, idempotent: true },
    { codec: 'LZ4', acks: -1, idempotent: true },
    { codec: 'ZSTD', acks: -1, idempotent: true },
    { codec: 'None', acks: 0, idempotent: false },
    { codec: 'GZIP', acks: 1, idempotent: false },
    { codec: 'ZSTD', acks: -1, idempotent: false },
  ];
  const kafka = client(bootstrap);
  const admin = kafka.admin();
  await admin.connect();
  for (const { codec, acks, idempotent } of runs) {
    const name = `kafkajs-${codec}-acks-${acks}-${idempotent ? 'idempotent' : 'plain'}`;
    const topic = `${name}-${randomUUID()}`;
    await admin.createTopics({ topics: [{ topic, numPartitions: PARTITIONS }], waitForLeaders: true });
    await produce(kafka, topic, CompressionTypes[codec], acks, idempotent);
    await read(kafka, topic);
    await lookUp(admin, topic);
    console.log(`ok ${name}`);
  }
  await admin.disconnect();
}

async function produce(kafka, topic, compression, acks, idempotent) {
  const producer = kafka.producer({ idempotent, maxInFlightRequests: 1 });
  await producer.connect();
  for (let start = 0; start < RECORDS; start += 100) {
    const messages = [];
    for (let i = start; i < start + 100; i += 1) {
      messages.push({
        key: key(i),
        value: value(i),
        partition: i % PARTITIONS,
        timestamp: String(timestamp(i)),
        headers: { number: [String(i), 'again'] },
      });
    }
    const answers = await producer.send({ topic, acks, compression, messages });
    for (const answer of acks === 0 ? [] : answers) {
      const first = Math.ceil((start - answer.partition) / PARTITIONS);
      assert.strictEqual(answer.baseOffset, String(first), JSON.stringify(answer));
    }
  }
  await producer.disconnect();
}

// This library reads in groups only: all of the topic, then again from the middle of a partition.
async function read(kafka, topic) {
  const consumer = kafka.consumer({ groupId: `${topic}-reader`, maxWaitTimeInMs: 100 });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  const next = new Array(PARTITIONS).fill(0);
  let wanted = RECORDS;
  let reached;
  let failed;
  const all = new Promise((resolve, reject) => [reached, failed] = [resolve, reject]);
  consumer.on(consumer.events.CRASH, (event) => failed(event.payload.error));
  await consumer.run({
    autoCommit: false,
    eachMessage: async ({ partition, message }) => {
      check(partition, next[partition], message);
      next[partition] += 1;
      wanted -= 1;
      if (wanted === 0) reached();
    },
  });
  await all;
  assert.deepStrictEqual(next, new Array(PARTITIONS).fill(PER_PARTITION));

  const middle = PER_PARTITION / 2;
  next[1] = middle;
  wanted = PER_PARTITION - middle;
  const rest = new Promise((resolve, reject) => [reached, failed] = [resolve, reject]);
  consumer.seek({ topic, partition: 1, offset: String(middle) });
  await rest;
  await consumer.disconnect();
}

function check(partition, n, message) {
  const i = n * PARTITIONS + partition;
  const got = [
    message.offset,
    message.timestamp,
    String(message.key),
    String(message.value),
    message.headers.number.map(String),
  ];
  const want = [String(n), String(timestamp(i)), key(i), value(i), [String(i), 'again']];
  assert.deepStrictEqual(got, want, `partition ${partition}`);
}

async function lookUp(admin, topic) {
  const ends = await admin.fetchTopicOffsets(topic);
  for (const { high, low } of ends) assert.deepStrictEqual([low, high], ['0', `${PER_PARTITION}`]);
  for (const n of [0, 1, PER_PARTITION / 2, PER_PARTITION - 1]) {
    // The records of one row lie one step apart, so all partitions agree on this time.
    const found = await admin.fetchTopicOffsetsByTimestamp(topic, timestamp(n * PARTITIONS));
    for (const { offset } of found) assert.strictEqual(offset, String(n), JSON.stringify(found));
  }
  // Past the end this library gives the end.
  const past = await admin.fetchTopicOffsetsByTimestamp(topic, timestamp(RECORDS) + 1);
  for (const { offset } of past) assert.strictEqual(offset, String(PER_PARTITION));
}

async function playMember(bootstrap, groupId, topic, strategy, versions) {
  assert.strictEqual(strategy, 'default', 'this library knows no other strategy');
  assert.strictEqual(versions, 'new', 'this library always speaks what the broker offers');
  const consumer = client(bootstrap).consumer({
    groupId,
    sessionTimeout: 10_000,
    heartbeatInterval: 500,
    maxWaitTimeInMs: 100,
  });
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    member.assigned(payload.memberAssignment[topic] || []);
  });
  consumer.on(consumer.events.REBALANCING, () => member.assigned([]));
  consumer.on(consumer.events.CRASH, ({ payload }) => {
    console.error(payload.error);
    process.exitCode = 1;
  });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await consumer.run({
    autoCommit: false,
    eachBatch: async ({ batch }) => {
      for (const message of batch.messages) member.record(batch.partition, message);
      const offset = String(Number(batch.lastOffset()) + 1);
      await consumer.commitOffsets([{ topic, partition: batch.partition, offset }]);
    },
  });
  await member.inputEnds();
  await consumer.disconnect();
}

/** Reads retention.ms until it is as expected: a broker may answer a change before it shows. */
async function awaitRetention(admin, topic, expected) {
  const end = Date.now() + 30_000;
  for (;;) {
    const { resources } = await admin.describeConfigs({
      includeSynonyms: true,
      resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configNames: ['retention.ms'] }],
    });
    const got = resources[0].configEntries[0].configValue;
    if (got === expected) return;
    assert(Date.now() < end, `retention.ms is ${got}, not ${expected}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function describe(bootstrap, groupId, topic) {
  const admin = client(bootstrap).admin();
  await admin.connect();
  const { groups } = await admin.listGroups();
  assert(groups.some((group) => group.groupId === groupId && group.protocolType === 'consumer'));
  console.log('ok list groups');

  const described = (await admin.describeGroups([groupId])).groups[0];
  assert.deepStrictEqual([described.state, described.members.length], ['Stable', 2]);
  console.log('ok describe group');

  const ends = await admin.fetchTopicOffsets(topic);
  const [committed] = await admin.fetchOffsets({ groupId, topics: [topic] });
  const sorted = (list) => list.map(({ partition, offset }) => `${partition}=${offset}`).sort();
  assert.deepStrictEqual(sorted(committed.partitions), sorted(ends));
  console.log('ok committed offsets');

  await awaitRetention(admin, topic, '604800000');
  for (const [configEntries, then] of [
    [[{ name: 'retention.ms', value: '7200000' }], '7200000'],
    [[], '604800000'], // The older call replaces the whole configuration.
  ]) {
    await admin.alterConfigs({
      validateOnly: false,
      resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries }],
    });
    await awaitRetention(admin, topic, then);
  }
  console.log('ok configs');
  await admin.disconnect();
}

async function remove(bootstrap, groupId, topic) {
  const admin = client(bootstrap).admin();
  await admin.connect();
  await admin.deleteGroups([groupId]);
  const { groups } = await admin.listGroups();
  assert(groups.every((group) => group.groupId !== groupId));
  console.log('ok delete group');

  await admin.deleteTopics({ topics: [topic] });
  assert(!(await admin.listTopics()).includes(topic));
  console.log('ok delete topic');
  await admin.disconnect();
}

const scenes = { exchange, member: playMember, describe, delete: remove };
const [scene, ...words] = process.argv.slice(2);
scenes[scene](...words).then(
  () => process.exit(),
  (failure) => {
    console.error(failure);
    process.exit(1);
  },
);
