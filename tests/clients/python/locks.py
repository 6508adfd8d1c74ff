"""redis-py's Lock, which other libraries build on: taken, kept from others, extended, and released by scripts."""

import json
import os
import threading

import redis

client = redis.Redis(host=os.environ["REDIS_HOST"], port=int(os.environ["REDIS_PORT"]), password=os.environ["REDIS_PASSWORD"])
exercised = []

lock = client.lock("lock", timeout=100)
other = client.lock("lock", timeout=100)
assert lock.acquire() is True
assert lock.locked() and lock.owned() and not other.owned()
assert other.acquire(blocking=False) is False
exercised.append("take")

assert lock.extend(100) is True
assert 150 < client.ttl("lock") <= 200
assert lock.reacquire() is True
assert 50 < client.ttl("lock") <= 100
exercised.append("extend")

lock.release()
assert client.exists("lock") == 0
assert other.acquire(blocking=False) is True
client.set("lock", "stolen")
try:
    other.release()
except redis.exceptions.LockNotOwnedError:
    pass
else:
    raise AssertionError("a lock of somebody else is not released")
assert client.get("lock") == b"stolen"
client.delete("lock")
exercised.append("release")

counted = []


def count():
    for _ in range(4):
        with client.lock("counter lock", timeout=60, sleep=0.005, blocking_timeout=60):
            counter = int(client.get("counter") or 0)
            counted.append(counter)
            client.set("counter", counter + 1)


threads = [threading.Thread(target=count) for _ in range(5)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert client.get("counter") == b"20" and sorted(counted) == list(range(20)), counted
exercised.append("wait in turn")

about = {
    "name": "redis-py Lock",
    "version": redis.__version__,
    "exercised": exercised,
    "config": 'client = redis.Redis(host="127.0.0.1", port=6379)\nwith client.lock("name", timeout=10): …',
}
print(json.dumps(about))
