// Fastify with @fastify/session over connect-redis and node-redis.
'use strict';

const fastifyCookie = require('@fastify/cookie');
const fastifySession = require('@fastify/session');
const { RedisStore } = require('connect-redis');
const fastify = require('fastify');
const { createClient } = require('redis');
const { HOST, PORT, TTL, say } = require('./serve.cjs');

async function main() {
  const client = createClient({ url: `redis://${HOST}:${PORT}` });
  client.on('error', () => {});
  await client.connect();
  const app = fastify();
  // An empty form.
  app.addContentTypeParser('application/x-www-form-urlencoded', (request, body, done) => done(null, {}));
  app.register(fastifyCookie);
  app.register(fastifySession, {
    secret: 'only for tests, but it has to be this long',
    store: new RedisStore({ client }),
    cookie: { secure: false, maxAge: TTL * 1000 },
    saveUninitialized: false,
  });
  app.post('/login', async (request) => {
    await request.session.regenerate();
    request.session.user = request.query.user;
    return 'ok';
  });
  app.get('/me', async (request) => request.session.user ?? '');
  app.post('/count', async (request) => {
    request.session.count = (request.session.count ?? 0) + 1;
    return String(request.session.count);
  });
  app.post('/rotate', async (request) => {
    await request.session.regenerate(['user', 'count']);
    return 'ok';
  });
  app.post('/logout', async (request, reply) => {
    await request.session.destroy();
    reply.clearCookie('sessionId');
    return 'ok';
  });
  await app.listen({ port: 0, host: '127.0.0.1' });
  say({
    name: '@fastify/session, connect-redis',
    config: 'const client = await createClient({ url: "redis://127.0.0.1:6379" }).connect();\n'
      + 'app.register(fastifySession, { store: new RedisStore({ client }), /* … */ });',
    keys: 'sess:*',
    touch: true,
    rotate: true,
  }, ['@fastify/session', 'connect-redis', 'redis', 'fastify'], app.server);
}

main();
