// What better-auth keeps beside sessions: tokens that are good once, and counters of its rate limiter, which are scripts.
import assert from 'node:assert';

import { redisStorage } from '@better-auth/redis-storage';
import { Redis } from 'ioredis5';

import serve from './serve.cjs';

const { HOST, PORT, installed } = serve;
const client = new Redis({ host: HOST, port: PORT, password: process.env.REDIS_PASSWORD });
const storage = redisStorage({ client });

await storage.set('token', 'once', 600);
assert.strictEqual(await storage.getAndDelete('token'), 'once');
assert.strictEqual(await storage.getAndDelete('token'), null);
const exercised = ['tokens that are good once'];

const counts = await Promise.all(Array.from({ length: 20 }, () => storage.increment('limit', 60)));
assert.deepStrictEqual(counts.sort((one, other) => one - other), Array.from({ length: 20 }, (_, number) => number + 1));
assert.ok(await client.ttl('better-auth:limit') > 0);
exercised.push('rate limits by a script');

await Promise.all(Array.from({ length: 30 }, (_, number) => storage.set(`key${number}`, 'v', 60)));
assert.strictEqual((await storage.listKeys()).length, 31);
await storage.clear();
assert.strictEqual((await storage.listKeys()).length, 0);
exercised.push('list and clear');
await client.quit();

const [name, version] = installed('@better-auth/redis-storage').split(/ (?=\d)/);
console.log(JSON.stringify({
  name: 'better-auth, beside sessions',
  version: `${name} ${version}, ${installed('ioredis5')}`,
  exercised,
  config: 'const client = new Redis("redis://:…@127.0.0.1:6379");\nbetterAuth({ secondaryStorage: redisStorage({ client }), /* … */ });',
}));
