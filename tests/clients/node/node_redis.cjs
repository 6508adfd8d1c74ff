// node-redis with its defaults does what session back ends do. Argument: the package, since there are several versions.
'use strict';

const assert = require('node:assert');
const { HOST, PORT, installed } = require('./serve.cjs');

const kind = process.argv[2];
const { createClient } = require(kind);
const version = installed(kind).split(' ')[1];
const major = Number(version.split('.')[0]);
const password = process.env.REDIS_PASSWORD;
const exercised = [];

function client(options = {}) {
  const made = createClient({ url: `redis://${HOST}:${PORT}`, password, ...options });
  made.on('error', () => {});
  return made;
}

async function main() {
  const off = { reconnectStrategy: false };
  await assert.rejects(client({ password: 'no', socket: off }).connect(), /WRONGPASS|invalid username-password/);
  const redis = await client().connect();
  assert.strictEqual(await redis.ping(), 'PONG');
  exercised.push('password');

  const other = await client({ url: `redis://${HOST}:${PORT}/1`, name: 'named' }).connect();
  assert.strictEqual(await other.dbSize(), 0);
  assert.strictEqual(await other.clientGetName(), 'named');
  assert.strictEqual(await other.set('only here', '1'), 'OK');
  assert.strictEqual(await redis.get('only here'), null);
  assert.strictEqual(await other.flushDb(), 'OK');
  await (major >= 5 ? other.destroy() : other.disconnect());
  exercised.push('name and database');

  if (major >= 5) {
    for (const RESP of [2, 3]) {
      const chosen = await client({ RESP }).connect();
      assert.strictEqual(await chosen.set('spoken', String(RESP)), 'OK');
      assert.strictEqual(await chosen.get('spoken'), String(RESP));
      assert.strictEqual(await chosen.del('spoken'), 1);
      chosen.destroy();
    }
    exercised.push('RESP2 and RESP3');
  }

  assert.strictEqual(await redis.get('sess:missing'), null);
  assert.strictEqual(await redis.set('sess:1', '{"user":"é"}', { EX: 600 }), 'OK');
  assert.strictEqual(await redis.get('sess:1'), '{"user":"é"}');
  assert.strictEqual(await redis.ttl('sess:1'), 600);
  assert.strictEqual(await redis.set('sess:1', 'x', { NX: true }), null);
  assert.equal(await redis.expire('sess:1', 100), 1);
  assert.strictEqual(await redis.ttl('sess:1'), 100);
  assert.strictEqual(await redis.setEx('sess:1', 50, 'y'), 'OK');
  assert.strictEqual(await redis.getEx('sess:1', { EX: 70 }), 'y');
  assert.strictEqual(await redis.ttl('sess:1'), 70);
  assert.deepStrictEqual(await redis.mGet(['sess:1', 'sess:missing']), ['y', null]);
  assert.equal(await redis.expire('sess:1', 0), 1);
  assert.strictEqual(await redis.exists('sess:1'), 0);
  await assert.rejects(redis.rename('sess:1', 'x'), /no such key/);
  exercised.push('string commands');

  const keys = Array.from({ length: 60 }, (_, number) => `sess:${number}`);
  // Sent in one go: node-redis pipelines what is called in one turn.
  await Promise.all(keys.map((key, number) => redis.set(key, String(number))));
  exercised.push('pipeline');

  assert.deepEqual(await redis.multi().set('m', '1').expire('m', 60).get('m').exec(), ['OK', 1, '1']);
  await redis.watch('m');
  await redis.set('m', '2');
  await assert.rejects(redis.multi().set('m', '3').exec(), /watched|Watch/i);
  exercised.push('MULTI and WATCH');
  const script = "return redis.call('set', KEYS[1], ARGV[1]) and {KEYS[1], redis.call('get', KEYS[1]), 1.9, false, 7}";
  assert.deepEqual(await redis.eval(script, { keys: ['m'], arguments: ['4'] }), ['m', '4', 1, null, 7]);
  const sha = await redis.scriptLoad(script);
  assert.deepEqual(await redis.evalSha(sha, { keys: ['m'], arguments: ['5'] }), ['m', '5', 1, null, 7]);
  await assert.rejects(redis.evalSha('0'.repeat(40)), /NOSCRIPT/);
  exercised.push('scripts');
  assert.equal(await redis.hSet('h', { user: 'ada', count: '1' }), 2);
  assert.equal(await redis.hIncrBy('h', 'count', 41), 42);
  assert.deepEqual({ ...await redis.hGetAll('h') }, { user: 'ada', count: '42' });
  assert.deepEqual(await redis.hmGet('h', ['user', 'missing']), ['ada', null]);
  assert.equal(await redis.hDel('h', 'user'), 1);
  await assert.rejects(redis.get('h'), /WRONGTYPE/);
  exercised.push('hashes');

  const found = [];
  for await (const page of redis.scanIterator({ MATCH: 'sess:*', COUNT: 10 })) found.push(...[page].flat());
  assert.deepStrictEqual(new Set(found), new Set(keys));
  assert.strictEqual(await redis.del(keys), 60);
  exercised.push('SCAN');
  await (major >= 5 ? redis.close() : redis.quit());

  console.log(JSON.stringify({
    name: `node-redis ${major}`,
    version,
    exercised,
    config: 'createClient({ url: "redis://:…@127.0.0.1:6379" })',
  }));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
