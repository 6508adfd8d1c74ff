"""redis-py with its defaults (RESP3 since 8.0) does what session back ends do. Argument: the port."""

import sys

import redis

assert int(redis.__version__.split(".")[0]) >= 8, f"redis-py {redis.__version__} is too old for this test"

client = redis.Redis(port=int(sys.argv[1]))
assert client.ping() is True
assert client.get("missing") is None
assert client.set("s:1", b"\x00\xff value", ex=600) is True
assert client.get("s:1") == b"\x00\xff value"
assert client.ttl("s:1") == 600
assert client.set("s:1", "other", nx=True) is None
assert client.set("s:1", "other", xx=True, keepttl=True) is True
assert 595 <= client.ttl("s:1") <= 600
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
assert sorted(client.scan_iter("s:*", count=7)) == sorted(f"s:{number}".encode() for number in range(1, 40))
assert client.dbsize() == 39
assert client.getdel("s:39") == b"39"
assert client.rename("s:38", "renamed") is True
try:
    client.rename("s:38", "x")
except redis.ResponseError as error:
    assert str(error) == "no such key", error
else:
    raise AssertionError("RENAME of a missing key is an error")
assert client.delete("s:1", "s:2", "missing") == 2
assert client.unlink("s:3") == 1
pipe = client.pipeline(transaction=False)
for number in range(100):
    pipe.set("counter", number)
    pipe.get("counter")
assert pipe.execute() == [reply for number in range(100) for reply in (True, str(number).encode())]
assert client.info()["redis_mode"] == "standalone"
assert client.info("server")["redis_version"][0].isdigit()
assert client.client_id() > 0
assert client.config_get("databases") == {"databases": "16"}
assert client.type("counter") == b"string"
other = redis.Redis(port=int(sys.argv[1]), db=3, client_name="named")
assert other.get("counter") is None
assert other.client_getname() == "named" or other.client_getname() == b"named"
old = redis.Redis(port=int(sys.argv[1]), protocol=2, decode_responses=True)
assert old.get("counter") == "99"
assert client.flushdb() is True
assert client.dbsize() == 0
