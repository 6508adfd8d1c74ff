<?php
// Laravel's sessions in its Redis cache store. With `app.lock=1`, `/count` holds the session's lock, as a blocking route does.

require __DIR__ . '/pages.php';
foreach (['Redis', 'Cache', 'Session', 'Support'] as $part) {
    require_once "Illuminate/$part/autoload.php";
}

use Illuminate\Cache\RedisStore;
use Illuminate\Cache\Repository;
use Illuminate\Redis\RedisManager;
use Illuminate\Session\CacheBasedSessionHandler;
use Illuminate\Session\Store;

const COOKIE = 'laravel_session';

function store(): RedisStore
{
    static $store = null;
    $config = ['client' => 'phpredis', 'default' => ['host' => host(), 'port' => port(), 'database' => 0]];
    return $store ??= new RedisStore(new RedisManager(null, 'phpredis', $config), 'app', 'default');
}

// What the middleware StartSession does around a request.
function with_session(callable $work): string
{
    $session = new Store(COOKIE, new CacheBasedSessionHandler(new Repository(store()), TTL / 60), $_COOKIE[COOKIE] ?? null);
    $session->start();
    $answer = (string) $work($session);
    $user = $session->get('user');
    setcookie(COOKIE, $user === null ? '' : $session->getId(), $user === null ? 1 : time() + TTL);
    if ($user === null) {
        // Else every visitor gets a session.
        $session->getHandler()->destroy($session->getId());
    } else {
        $session->save();
    }
    return $answer;
}

function locked(callable $work): string
{
    if (!get_cfg_var('app.lock')) {
        return $work();
    }
    return store()->lock('session:' . $_COOKIE[COOKIE], 10)->block(20, $work);
}

$pages = [
    'POST /login' => fn () => with_session(function (Store $session) {
        $session->migrate(true);
        $session->put('user', $_GET['user']);
        return 'ok';
    }),
    'GET /me' => fn () => with_session(fn (Store $session) => $session->get('user', '')),
    'POST /count' => fn () => locked(fn () => with_session(function (Store $session) {
        $count = $session->get('count', 0) + 1;
        usleep(2000);
        $session->put('count', $count);
        return $count;
    })),
    'POST /rotate' => fn () => with_session(function (Store $session) {
        $session->migrate(true);
        return 'ok';
    }),
    'POST /logout' => fn () => with_session(function (Store $session) {
        $session->invalidate();
        return 'ok';
    }),
];
page($pages, [
    'name' => 'Laravel sessions' . (get_cfg_var('app.lock') ? ' with cache locks' : ''),
    'version' => 'illuminate/session ' . packaged('php-illuminate-session') . ', phpredis ' . phpversion('redis'),
    'config' => "SESSION_DRIVER=redis\nREDIS_URL=redis://127.0.0.1:6379",
    'keys' => 'app:????????????????????????????????????????',
    'touch' => true,
    'rotate' => true,
    'lock' => (bool) get_cfg_var('app.lock'),
]);
