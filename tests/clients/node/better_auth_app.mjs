// better-auth with its sessions in secondary storage. Its users are in memory.
import http from 'node:http';

import { redisStorage } from '@better-auth/redis-storage';
import { betterAuth } from 'better-auth';
import { memoryAdapter } from 'better-auth/adapters/memory';
import { Redis } from 'ioredis5';

import serve from './serve.cjs';

const { HOST, PORT, TTL, say } = serve;
const client = new Redis({ host: HOST, port: PORT });
const auth = betterAuth({
  baseURL: 'http://127.0.0.1',
  secret: 'only for tests, but it has to be this long',
  database: memoryAdapter({ user: [], session: [], account: [], verification: [] }),
  secondaryStorage: redisStorage({ client }),
  emailAndPassword: { enabled: true, password: { hash: async (word) => word, verify: async ({ hash, password }) => hash === password } },
  session: { expiresIn: TTL, updateAge: 0 },
  user: { additionalFields: { count: { type: 'number', required: false, defaultValue: 0 } } },
  logger: { disabled: true },
});

const password = 'lovelace1815';
const pages = {
  'POST /login': async ({ query }) => {
    const name = query.get('user');
    const body = { email: `${name}@example.org`, password };
    const known = await auth.api.signInEmail({ body, asResponse: true });
    if (known.ok) return known;
    return auth.api.signUpEmail({ body: { ...body, name }, asResponse: true });
  },
  'GET /me': async ({ headers }) => auth.api.getSession({ headers, asResponse: true }),
  'POST /count': async ({ headers }) => {
    const { user } = await auth.api.getSession({ headers });
    return auth.api.updateUser({ headers, body: { count: (user.count ?? 0) + 1 }, asResponse: true });
  },
  'POST /logout': async ({ headers }) => auth.api.signOut({ headers, asResponse: true }),
};
const shown = {
  'GET /me': (body) => body?.user.name ?? '',
  'POST /count': async (body, headers) => String((await auth.api.getSession({ headers })).user.count),
};

const server = http.createServer(async (request, response) => {
  const url = new URL(request.url, 'http://127.0.0.1');
  const page = `${request.method} ${url.pathname}`;
  const headers = new Headers({ cookie: request.headers.cookie ?? '' });
  try {
    const answer = await pages[page]({ query: url.searchParams, headers });
    const text = await (shown[page] ?? (() => 'ok'))(await answer.json(), headers);
    response.writeHead(answer.status, { 'set-cookie': answer.headers.getSetCookie() }).end(text);
  } catch (error) {
    response.writeHead(500).end(String(error.stack));
  }
});
server.listen(0, '127.0.0.1', () => say({
  name: 'better-auth, secondary storage',
  config: 'const client = new Redis("redis://127.0.0.1:6379");\n'
    + 'betterAuth({ secondaryStorage: redisStorage({ client }), /* … */ });',
  // The session itself; beside it there is a list of each user's sessions.
  keys: 'better-auth:????????????????????????????????',
  touch: true,
}, ['better-auth', '@better-auth/redis-storage', 'ioredis5'], server));
