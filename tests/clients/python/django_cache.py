"""Django's cache, which sessions share with the rest of an application. Argument: `django` or `django-redis`."""

import json
import os
import sys
from importlib.metadata import version

import django
from django.conf import settings

IS_DJANGO_REDIS = sys.argv[1] == "django-redis"
BACKEND = "django_redis.cache.RedisCache" if IS_DJANGO_REDIS else "django.core.cache.backends.redis.RedisCache"
URL = f"redis://:{os.environ['REDIS_PASSWORD']}@{os.environ['REDIS_HOST']}:{os.environ['REDIS_PORT']}/1"

settings.configure(CACHES={"default": {"BACKEND": BACKEND, "LOCATION": URL}})
django.setup()

from django.core.cache import cache

exercised = []
assert cache.get("missing", "default") == "default"
cache.set("key", {"user": "ada"}, 600)
assert cache.get("key") == {"user": "ada"}
assert cache.add("key", "other", 600) is False and cache.add("fresh", "v", 600) is True
assert cache.touch("key", 1200) is True and cache.touch("missing") is False
assert cache.get_or_set("key", "other") == {"user": "ada"}
assert "key" in cache and cache.delete("key") is True and cache.delete("key") is False
exercised.append("get, set, add, touch, delete")

assert not cache.set_many({f"many{number}": number for number in range(30)}, 600)
assert cache.get_many(["many1", "many29", "missing"]) == {"many1": 1, "many29": 29}
cache.delete_many([f"many{number}" for number in range(0, 30, 2)])
assert cache.get_many(["many1", "many2"]) == {"many1": 1}
exercised.append("many in a transaction")

cache.set("counter", 40)
assert cache.incr("counter", 2) == 42 and cache.decr("counter") == 41
try:
    cache.incr("missing")
except ValueError:
    pass
else:
    raise AssertionError("a counter that is not there cannot be raised")
exercised.append("incr by a script" if IS_DJANGO_REDIS else "incr")

if IS_DJANGO_REDIS:
    assert 590 < cache.ttl("many1") <= 600 and cache.persist("many1") and cache.ttl("many1") is None
    assert cache.pexpire("many3", 100_000) and 90_000 < cache.pttl("many3") <= 100_000
    assert sorted(cache.iter_keys("many1*")) == sorted(["many1", *(f"many1{number}" for number in (1, 3, 5, 7, 9))])
    assert cache.delete_pattern("many*") == 15
    exercised.append("expiry and patterns")
    with cache.lock("lock", timeout=10):
        assert cache.lock("lock", timeout=10).acquire(blocking=False) is False
    assert cache.lock("lock", timeout=10).acquire(blocking=False) is True
    exercised.append("lock")

cache.clear()
assert cache.get("counter") is None
exercised.append("clear")

package = "django-redis" if IS_DJANGO_REDIS else "Django"
about = {
    "name": f"{package} cache",
    "version": f"{package} {version(package)}, redis {version('redis')}",
    "exercised": exercised,
    "config": f'CACHES = {{"default": {{"BACKEND": "{BACKEND}",\n    "LOCATION": "redis://:…@127.0.0.1:6379/1"}}}}',
}
print(json.dumps(about))
