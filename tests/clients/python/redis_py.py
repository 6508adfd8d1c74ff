"""redis-py of any version, with its defaults, does what session back ends do."""

import asyncio
import json
import os

import redis
import redis.asyncio

HOST, PORT, PASSWORD = os.environ["REDIS_HOST"], int(os.environ["REDIS_PORT"]), os.environ["REDIS_PASSWORD"]
MAJOR = int(redis.__version__.split(".")[0])
exercised = []


def passed(step):
    exercised.append(step)


def refused(kind, text, call, *args, **options):
    try:
        call(*args, **options)
    except kind as error:
        assert text in str(error), error
    else:
        raise AssertionError(f"{text}: not refused")


def connect(**options):
    return redis.Redis(host=HOST, port=PORT, password=PASSWORD, **options)


refused(redis.AuthenticationError, "uthentica", redis.Redis(host=HOST, port=PORT).ping)
refused(redis.AuthenticationError, "username-password", redis.Redis(host=HOST, port=PORT, password="no").ping)
client = connect()
assert client.ping() is True
assert redis.Redis(host=HOST, port=PORT, username="default", password=PASSWORD).ping() is True
passed("password")

other = connect(db=3, client_name="named")
assert other.client_getname() in ("named", b"named")
assert other.set("only here", 1) is True
assert client.get("only here") is None
assert other.flushdb() is True
passed("name and database")
assert client.client_id() > 0
assert client.info()["redis_mode"] == "standalone"
assert client.info("server")["redis_version"][0].isdigit()
assert client.config_get("databases") == {"databases": "16"}
passed("INFO and CONFIG")

if MAJOR >= 5:
    for protocol in (2, 3):
        chosen = connect(protocol=protocol, decode_responses=True)
        assert chosen.set("spoken", str(protocol)) is True
        assert chosen.get("spoken") == str(protocol)
        assert chosen.delete("spoken") == 1
    passed("RESP2 and RESP3")

assert client.get("missing") is None
assert client.set("s:1", b"\x00\xff value", ex=600) is True
assert client.get("s:1") == b"\x00\xff value"
assert client.ttl("s:1") == 600
assert client.set("s:1", "other", nx=True) is None
assert client.set("s:1", "other", xx=True, keepttl=True) is True
assert 500 <= client.ttl("s:1") <= 600
assert client.set("s:1", "third", get=True) == b"other"
assert client.ttl("s:1") == -1
assert client.expire("s:1", 100) is True
assert client.expire("s:1", 50, gt=True) is False
assert client.persist("s:1") is True
assert client.getex("s:1", ex=100) == b"third"
assert client.ttl("s:1") == 100
assert client.exists("s:1", "missing") == 1
assert client.mset({f"s:{number}": number for number in range(2, 40)}) is True
assert client.mget("s:2", "missing", "s:39") == [b"2", None, b"39"]
assert client.incrby("s:2", 40) == 42
assert client.type("s:2") == b"string"
assert client.dbsize() == 39
assert client.getdel("s:39") == b"39"
assert client.rename("s:38", "renamed") is True
refused(redis.ResponseError, "no such key", client.rename, "s:38", "x")
assert client.delete("s:1", "s:2", "missing") == 2
assert client.unlink("s:3") == 1
passed("string commands")

assert sorted(client.scan_iter("s:*", count=7)) == sorted(f"s:{number}".encode() for number in range(4, 38))
passed("SCAN")

pipe = client.pipeline(transaction=False)
for number in range(100):
    pipe.set("counter", number)
    pipe.get("counter")
assert pipe.execute() == [reply for number in range(100) for reply in (True, str(number).encode())]
passed("pipeline")

assert client.pipeline().set("m", "1", nx=True).expire("m", 60).get("m").execute() == [True, True, b"1"]
with client.pipeline() as watched:
    watched.watch("m")
    connect().set("m", "2")
    watched.multi()
    watched.set("m", "3")
    try:
        watched.execute()
    except redis.WatchError:
        pass
    else:
        raise AssertionError("a watched key was changed by somebody else")
assert client.get("m") == b"2"
passed("MULTI and WATCH")

script = client.register_script("return redis.call('set', KEYS[1], ARGV[1]) and {KEYS[1], redis.call('get', KEYS[1]), 1.9, false, 7}")
assert script(keys=["m"], args=["4"]) == [b"m", b"4", 1, None, 7]
assert script(keys=["m"], args=["5"]) == [b"m", b"5", 1, None, 7]
refused(redis.ResponseError, "no such thing", client.eval, "return redis.error_reply('ERR no such thing')", 0)
passed("scripts")

assert client.hset("h", mapping={"user": "ada", "count": 1}) == 2
assert client.hincrby("h", "count", 41) == 42
assert client.hgetall("h") == {b"user": b"ada", b"count": b"42"}
assert client.hmget("h", "user", "missing") == [b"ada", None]
assert dict(client.hscan_iter("h")) == client.hgetall("h")
assert client.hdel("h", "user", "missing") == 1
refused(redis.ResponseError, "WRONGTYPE", client.get, "h")
assert client.expire("h", 60) is True
passed("hashes")


async def beside():
    client = redis.asyncio.Redis(host=HOST, port=PORT, password=PASSWORD, db=2)
    await asyncio.gather(*(client.set(f"a:{number}", number, ex=60) for number in range(20)))
    assert await client.mget("a:0", "a:19") == [b"0", b"19"]
    assert await client.flushdb() is True
    await (client.aclose() if MAJOR >= 5 else client.close())


asyncio.run(beside())
passed("asyncio")
assert client.flushdb() is True
assert client.dbsize() == 0

about = {
    "name": f"redis-py {MAJOR}",
    "version": redis.__version__,
    "exercised": exercised,
    "config": 'redis.Redis(host="127.0.0.1", port=6379, password="…")',
}
print(json.dumps(about))
