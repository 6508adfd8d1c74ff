// ioredis with its defaults does what session back ends do. Argument: the package, since there are several versions.
'use strict';

const assert = require('node:assert');
const { HOST, PORT, installed } = require('./serve.cjs');

const kind = process.argv[2];
const { Redis } = require(kind);
const version = installed(kind).split(' ')[1];
const password = process.env.REDIS_PASSWORD;
const exercised = [];

function connect(options = {}) {
  return new Redis({ host: HOST, port: PORT, password, ...options });
}

async function main() {
  const wrong = connect({ password: 'no', lazyConnect: true, retryStrategy: null, maxRetriesPerRequest: 0 });
  wrong.on('error', () => {});
  await assert.rejects(wrong.connect().then(() => wrong.get('sess:1')), /WRONGPASS|NOAUTH|closed/);
  wrong.disconnect();
  const redis = connect();
  assert.strictEqual(await redis.ping(), 'PONG');
  exercised.push('password');

  const other = connect({ db: 1, connectionName: 'named' });
  assert.strictEqual(await other.client('GETNAME'), 'named');
  assert.strictEqual(await other.set('only here', '1'), 'OK');
  assert.strictEqual(await redis.get('only here'), null);
  assert.strictEqual(await other.flushdb(), 'OK');
  await other.quit();
  exercised.push('name and database', 'INFO as its ready check');

  assert.strictEqual(await redis.get('sess:missing'), null);
  assert.strictEqual(await redis.set('sess:1', Buffer.from([0, 255, 13, 10]), 'EX', 600), 'OK');
  assert.deepStrictEqual(await redis.getBuffer('sess:1'), Buffer.from([0, 255, 13, 10]));
  assert.strictEqual(await redis.ttl('sess:1'), 600);
  assert.strictEqual(await redis.set('sess:1', 'x', 'NX'), null);
  assert.strictEqual(await redis.expire('sess:1', 100), 1);
  assert.strictEqual(await redis.ttl('sess:1'), 100);
  assert.strictEqual(await redis.setex('sess:1', 50, 'y'), 'OK');
  assert.strictEqual(await redis.getex('sess:1', 'EX', 70), 'y');
  assert.strictEqual(await redis.ttl('sess:1'), 70);
  assert.deepStrictEqual(await redis.mget('sess:1', 'sess:missing'), ['y', null]);
  assert.strictEqual(await redis.call('GETDEL', 'sess:1'), 'y');
  assert.strictEqual(await redis.exists('sess:1'), 0);
  await assert.rejects(redis.rename('sess:1', 'x'), /no such key/);
  exercised.push('string commands');

  const keys = Array.from({ length: 60 }, (_, number) => `sess:${number}`);
  const pipeline = redis.pipeline();
  keys.forEach((key, number) => pipeline.set(key, String(number)).get(key));
  const replies = await pipeline.exec();
  assert.deepStrictEqual(replies, keys.flatMap((_, number) => [[null, 'OK'], [null, String(number)]]));
  exercised.push('pipeline');

  assert.deepStrictEqual(await redis.multi().set('m', '1').expire('m', 60).get('m').exec(), [[null, 'OK'], [null, 1], [null, '1']]);
  await redis.watch('m');
  await redis.set('m', '2');
  assert.strictEqual(await redis.multi().set('m', '3').exec(), null);
  exercised.push('MULTI and WATCH');
  // Sent by its hash first, and whole when the server does not know it.
  const lua = "return redis.call('set', KEYS[1], ARGV[1]) and {KEYS[1], redis.call('get', KEYS[1]), 1.9, false, 7}";
  redis.defineCommand('store', { numberOfKeys: 1, lua });
  assert.deepStrictEqual(await redis.store('m', '4'), ['m', '4', 1, null, 7]);
  assert.deepStrictEqual(await redis.store('m', '5'), ['m', '5', 1, null, 7]);
  exercised.push('scripts');
  assert.strictEqual(await redis.hset('h', { user: 'ada', count: '1' }), 2);
  assert.strictEqual(await redis.hincrby('h', 'count', 41), 42);
  assert.deepStrictEqual(await redis.hgetall('h'), { user: 'ada', count: '42' });
  assert.deepStrictEqual(await redis.hmget('h', 'user', 'missing'), ['ada', null]);
  assert.strictEqual(await redis.hdel('h', 'user'), 1);
  await assert.rejects(redis.get('h'), /WRONGTYPE/);
  exercised.push('hashes');

  const found = [];
  for await (const page of redis.scanStream({ match: 'sess:*', count: 10 })) found.push(...page);
  assert.deepStrictEqual(new Set(found), new Set(keys));
  assert.strictEqual(await redis.del(keys), 60);
  exercised.push('SCAN');
  await redis.quit();

  console.log(JSON.stringify({
    name: `ioredis ${version.split('.')[0]}`,
    version,
    exercised,
    config: 'new Redis("redis://:…@127.0.0.1:6379")',
  }));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
