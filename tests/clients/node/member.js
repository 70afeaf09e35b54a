'use strict';

// What a member of a group says: what it owns and what it reads, a line each, tabs between fields.
//
//   assigned PARTITION,PARTITION...
//   record PARTITION OFFSET TIMESTAMP KEY VALUE NAME=VALUE,NAME=VALUE...
//
// Node writes to a pipe synchronously, so a batch's lines are out before it is committed.

function assigned(partitions) {
  const sorted = [...partitions].sort((a, b) => a - b);
  process.stdout.write(`assigned\t${sorted.join(',')}\n`);
}

function record(partition, message) {
  const headers = Object.entries(message.headers).map(([name, value]) => `${name}=${value}`);
  const fields = [partition, message.offset, message.timestamp, message.key, message.value];
  process.stdout.write(`record\t${fields.join('\t')}\t${headers.join(',')}\n`);
}

/** Resolves once standard input is at its end. */
function inputEnds() {
  return new Promise((resolve) => {
    process.stdin.on('end', resolve);
    process.stdin.resume();
  });
}

module.exports = { assigned, record, inputEnds };
