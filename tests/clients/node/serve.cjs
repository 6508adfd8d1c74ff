// What the applications share: where the server is, how long a session lives, and the line that says what one is.
'use strict';

const fs = require('node:fs');
const path = require('node:path');

const HOST = process.env.REDIS_HOST ?? '127.0.0.1';
const PORT = Number(process.env.REDIS_PORT);

// The version of a package as it is installed under this name, with the name that it has by itself.
function installed(name) {
  const found = require.resolve.paths(name)
    .map((folder) => path.join(folder, name, 'package.json'))
    .find((file) => fs.existsSync(file));
  const { name: own, version } = JSON.parse(fs.readFileSync(found, 'utf8'));
  return `${own} ${version}`;
}

function say(about, packages, server) {
  const version = packages.map(installed).join(', ');
  const http = server.address().port;
  console.log(JSON.stringify({ ttl: 1800, keys: '*', ...about, version, http }));
}

module.exports = { HOST, PORT, TTL: 1800, installed, say };
