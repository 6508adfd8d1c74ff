// node-redis with its defaults (RESP3 since 6) does what session back ends do. Argument: the port.
'use strict';

const assert = require('node:assert');
const { createClient } = require('redis');

const major = Number(require('redis/package.json').version.split('.')[0]);
assert.ok(major >= 6, `node-redis ${major} is too old for this test`);

async function main() {
  const client = createClient({ url: `redis://127.0.0.1:${process.argv[2]}` });
  client.on('error', (error) => { throw error; });
  await client.connect();
  assert.strictEqual(await client.ping(), 'PONG');
  assert.strictEqual(await client.get('sess:missing'), null);
  assert.strictEqual(await client.set('sess:1', '{"user":"é"}', { expiration: { type: 'EX', value: 600 } }), 'OK');
  assert.strictEqual(await client.get('sess:1'), '{"user":"é"}');
  assert.strictEqual(await client.ttl('sess:1'), 600);
  assert.strictEqual(await client.set('sess:1', 'x', { condition: 'NX' }), null);
  assert.strictEqual(await client.expire('sess:1', 100), 1);
  assert.strictEqual(await client.ttl('sess:1'), 100);
  const keys = Array.from({ length: 60 }, (_, number) => `sess:${number}`);
  // Sent in one go: node-redis pipelines what is called in one turn.
  await Promise.all(keys.map((key, number) => client.set(key, String(number))));
  const found = [];
  for await (const page of client.scanIterator({ MATCH: 'sess:*', COUNT: 10 })) found.push(...page);
  assert.deepStrictEqual(new Set(found), new Set(keys));
  assert.deepStrictEqual(await client.mGet(['sess:7', 'sess:missing']), ['7', null]);
  assert.strictEqual(await client.exists('sess:7'), 1);
  assert.strictEqual(await client.expire('sess:7', 0), 1);
  assert.strictEqual(await client.exists('sess:7'), 0);
  assert.strictEqual(await client.del(keys), 59);
  await client.close();

  const second = createClient({ url: `redis://127.0.0.1:${process.argv[2]}/1`, name: 'named' });
  await second.connect();
  assert.strictEqual(await second.dbSize(), 0);
  assert.strictEqual(await second.clientGetName(), 'named');
  second.destroy();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
