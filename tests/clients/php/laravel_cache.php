<?php
// Laravel's cache store: what is added once, locks, and many values in a transaction.

require __DIR__ . '/pages.php';
foreach (['Redis', 'Cache', 'Support'] as $part) {
    require_once "Illuminate/$part/autoload.php";
}

use Illuminate\Cache\RedisStore;
use Illuminate\Cache\Repository;
use Illuminate\Redis\RedisManager;

function same(mixed $expected, mixed $actual): void
{
    if ($expected !== $actual) {
        throw new RuntimeException(var_export($expected, true) . ' expected, not ' . var_export($actual, true));
    }
}

$connection = ['host' => host(), 'port' => port(), 'password' => getenv('REDIS_PASSWORD'), 'database' => 1];
$exercised = [];
// With phpredis a lock goes one way, with Predis another.
foreach (['phpredis', 'predis'] as $client) {
    require_once 'Predis/autoload.php';
    $store = new RedisStore(new RedisManager(null, $client, ['default' => $connection]), "app-$client", 'default');
    $cache = new Repository($store);

    same(true, $cache->put('key', ['user' => 'ada'], 600));
    same(['user' => 'ada'], $cache->get('key'));
    same(true, $cache->add('added', 'v', 600));
    same(false, $cache->add('added', 'w', 600));
    same('v', $cache->pull('added'));
    same(true, $cache->putMany(['a' => 1, 'b' => 2], 600));
    same(['a' => '1', 'b' => '2', 'c' => null], $cache->many(['a', 'b', 'c']));
    same(3, (int) $cache->increment('b'));

    $lock = $store->lock('lock', 100);
    same(true, $lock->get());
    same(false, $store->lock('lock', 100)->get());
    same(false, $store->lock('lock', 100, 'somebody else')->release());
    same(true, (bool) $lock->release());
    $again = $store->lock('lock', 100);
    same('done', $again->block(5, fn () => 'done'));
    same(true, $again->get());
    same(true, (bool) $store->restoreLock('lock', $again->owner())->release());
    same(true, $again->get());
    $again->forceRelease();
    same(true, $cache->forget('key'));
    same(true, $cache->flush());
}
say([
    'name' => 'Laravel cache and locks',
    'version' => 'illuminate/cache ' . packaged('php-illuminate-cache') . ', phpredis ' . phpversion('redis') . ', Predis ' . Predis\Client::VERSION,
    'exercised' => ['put, get, add, pull, increment', 'many in a transaction', 'take and release locks', 'block', 'flush'],
    'config' => "CACHE_DRIVER=redis\nREDIS_URL=redis://127.0.0.1:6379",
]);
