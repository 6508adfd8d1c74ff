// Koa with koa-session and koa-redis, which brings ioredis 4.
'use strict';

const Koa = require('koa');
const redisStore = require('koa-redis');
const koaSession = require('koa-session');
const { HOST, PORT, TTL, say } = require('./serve.cjs');

const session = koaSession.createSession ?? koaSession.default ?? koaSession;
const app = new Koa();
app.keys = ['only for tests'];
app.use(session({ store: redisStore({ host: HOST, port: PORT }), maxAge: TTL * 1000, rolling: true }, app));

const pages = {
  'POST /login': async (context) => {
    context.session = { user: context.query.user };
    await context.session.regenerate();
    return 'ok';
  },
  'GET /me': (context) => context.session.user ?? '',
  'POST /count': (context) => {
    context.session.count = (context.session.count ?? 0) + 1;
    return String(context.session.count);
  },
  'POST /rotate': async (context) => {
    await context.session.regenerate();
    return 'ok';
  },
  'POST /logout': (context) => {
    context.session = null;
    return 'ok';
  },
};
app.use(async (context) => {
  context.body = await pages[`${context.method} ${context.path}`](context);
});
const server = app.listen(0, '127.0.0.1', () => say({
  name: 'koa-session, koa-redis',
  config: 'const store = redisStore({ url: "redis://127.0.0.1:6379" });\n'
    + 'app.use(session({ store, rolling: true }, app));',
  touch: true,
  rotate: true,
}, ['koa-session', 'koa-redis', 'koa'], server));
