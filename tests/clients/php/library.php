<?php
// phpredis or Predis with its defaults does what session back ends do. Argument: `phpredis` or `predis`.

$kind = $argv[1];
$password = getenv('REDIS_PASSWORD');
$exercised = [];

function same(mixed $expected, mixed $actual): void
{
    if ($expected !== $actual) {
        throw new RuntimeException(var_export($expected, true) . ' expected, not ' . var_export($actual, true));
    }
}

function refused(string $text, callable $work): void
{
    try {
        $work();
    } catch (Exception $error) {
        if (str_contains($error->getMessage(), $text)) {
            return;
        }
        throw $error;
    }
    throw new RuntimeException("$text: not refused");
}

function phpredis(?string $password, int $database = 0): Redis
{
    $redis = new Redis();
    $redis->connect(getenv('REDIS_HOST'), (int) getenv('REDIS_PORT'));
    if ($password !== null) {
        $redis->auth($password);
    }
    if ($database !== 0) {
        $redis->select($database);
    }
    return $redis;
}

function predis(?string $password, int $database = 0): Predis\Client
{
    require_once 'Predis/autoload.php';
    $where = ['host' => getenv('REDIS_HOST'), 'port' => (int) getenv('REDIS_PORT')];
    return new Predis\Client($where + array_filter(['password' => $password, 'database' => $database]));
}

// phpredis says true where Predis has a status.
function done(mixed $reply): void
{
    same('OK', $reply === true ? 'OK' : (string) $reply);
}

refused('NOAUTH', fn () => $kind(null)->get('s:1'));
refused('WRONGPASS', fn () => $kind('no')->get('s:1'));
$redis = $kind($password);
same(true, in_array((string) $redis->ping(), ['PONG', '1'], true));
$exercised[] = 'password';

$other = $kind($password, 3);
done($other->client('setname', 'named'));
same('named', $other->client('getname'));
done($other->set('only here', '1'));
same(0, $redis->exists('only here'));
done($other->flushdb());
$exercised[] = 'name and database';
$info = $redis->info();
same('standalone', $info['redis_mode'] ?? $info['Server']['redis_mode']);
$exercised[] = 'INFO';

done($redis->setex('s:1', 600, "\x00\xff\r\n"));
same("\x00\xff\r\n", $redis->get('s:1'));
same(600, $redis->ttl('s:1'));
same(0, (int) $redis->setnx('s:1', 'x'));
same(1, (int) $redis->expire('s:1', 100));
same(100, $redis->ttl('s:1'));
done($kind === 'predis' ? $redis->set('s:1', 'y', 'PX', 50000, 'XX') : $redis->set('s:1', 'y', ['xx', 'px' => 50000]));
same(50, $redis->ttl('s:1'));
same('y', $redis->mget(['s:1', 'missing'])[0]);
same(1, $redis->del('s:1', 'missing'));
same(0, $redis->exists('s:1'));
$exercised[] = 'string commands';

$replies = $kind === 'predis'
    ? $redis->pipeline(fn ($pipe) => array_map(fn ($number) => $pipe->set("s:$number", $number), range(0, 59)))
    : array_reduce(range(0, 59), fn ($pipe, $number) => $pipe->set("s:$number", (string) $number), $redis->pipeline())->exec();
same(60, count($replies));
array_walk($replies, fn ($reply) => done($reply));
$exercised[] = 'pipeline';

$found = [];
if ($kind === 'predis') {
    foreach (new Predis\Collection\Iterator\Keyspace($redis, 's:*', 10) as $key) {
        $found[$key] = true;
    }
} else {
    $cursor = null;
    while (($page = $redis->scan($cursor, 's:*', 10)) !== false) {
        $found += array_fill_keys($page, true);
    }
}
same(60, count($found));
$exercised[] = 'SCAN';

$replies = $kind === 'predis'
    ? $redis->transaction(fn ($all) => $all->setex('m', 9, 'v')->get('m'))
    : $redis->multi()->setex('m', 9, 'v')->get('m')->exec();
done($replies[0]);
same('v', $replies[1]);
$exercised[] = 'MULTI';

$script = "return redis.call('set', KEYS[1], ARGV[1]) and {KEYS[1], redis.call('get', KEYS[1]), 1.9, false, 7}";
$nil = $kind === 'predis' ? null : false;
same(['m', '4', 1, $nil, 7], $kind === 'predis' ? $redis->eval($script, 1, 'm', '4') : $redis->eval($script, ['m', '4'], 1));
$sha = $redis->script('load', $script);
same(['m', '5', 1, $nil, 7], $kind === 'predis' ? $redis->evalsha($sha, 1, 'm', '5') : $redis->evalsha($sha, ['m', '5'], 1));
$exercised[] = 'scripts';
done($redis->hmset('h', ['user' => 'ada', 'count' => 1]));
same(42, $redis->hincrby('h', 'count', 41));
same(['user' => 'ada', 'count' => '42'], $redis->hgetall('h'));
same('ada', $redis->hget('h', 'user'));
same(1, $redis->hdel('h', 'user'));
$exercised[] = 'hashes';

echo json_encode([
    'name' => $kind === 'predis' ? 'Predis' : 'phpredis',
    'version' => $kind === 'predis' ? Predis\Client::VERSION : phpversion('redis'),
    'exercised' => $exercised,
    'config' => $kind === 'predis'
        ? "new Predis\Client('tcp://127.0.0.1:6379?password=…');"
        : "\$redis->connect('127.0.0.1', 6379); \$redis->auth('…');",
], JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE), "\n";
