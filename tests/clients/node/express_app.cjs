// Express with express-session and connect-redis. Argument: the package of the client.
'use strict';

const express = require('express');
const session = require('express-session');
const { HOST, PORT, TTL, say } = require('./serve.cjs');

const kind = process.argv[2];
const isIoredis = kind.startsWith('ioredis');
// From version 9 on, connect-redis takes node-redis only.
const store = isIoredis ? 'connect-redis7' : 'connect-redis';

async function connect() {
  if (isIoredis) {
    const { Redis } = require(kind);
    return new Redis({ host: HOST, port: PORT });
  }
  const client = require(kind).createClient({ url: `redis://${HOST}:${PORT}` });
  client.on('error', () => {});
  return client.connect();
}

async function main() {
  const client = await connect();
  const loaded = require(store);
  const RedisStore = loaded.RedisStore ?? loaded.default;
  const app = express();
  app.use(session({
    store: new RedisStore({ client }),
    secret: 'only for tests',
    resave: false,
    saveUninitialized: false,
    cookie: { maxAge: TTL * 1000 },
  }));
  const regenerated = (request, keep, next) => {
    const kept = keep ? { user: request.session.user, count: request.session.count } : {};
    request.session.regenerate((error) => {
      if (error) return next(error);
      Object.assign(request.session, kept);
      return next();
    });
  };
  app.post('/login', (request, response, next) => regenerated(request, false, (error) => {
    if (error) return next(error);
    request.session.user = request.query.user;
    return response.send('ok');
  }));
  app.get('/me', (request, response) => response.send(request.session.user ?? ''));
  app.post('/count', (request, response) => {
    request.session.count = (request.session.count ?? 0) + 1;
    response.send(String(request.session.count));
  });
  app.post('/rotate', (request, response, next) => regenerated(request, true, (error) => {
    if (error) return next(error);
    return response.send('ok');
  }));
  app.post('/logout', (request, response, next) => request.session.destroy((error) => {
    if (error) return next(error);
    return response.clearCookie('connect.sid').send('ok');
  }));
  const server = app.listen(0, '127.0.0.1', () => say({
    name: `express-session, connect-redis, ${isIoredis ? 'ioredis' : 'node-redis'}`,
    config: (isIoredis
      ? 'const client = new Redis("redis://127.0.0.1:6379");\n'
      : 'const client = await createClient({ url: "redis://127.0.0.1:6379" }).connect();\n')
      + 'app.use(session({ store: new RedisStore({ client }), /* … */ }));',
    keys: 'sess:*',
    touch: true,
    rotate: true,
  }, ['express-session', store, kind], server));
}

main();
