<?php
// Symfony's session over its RedisSessionHandler and phpredis.

require __DIR__ . '/pages.php';
require 'Symfony/Component/HttpFoundation/autoload.php';

use Symfony\Component\HttpFoundation\Session\Session;
use Symfony\Component\HttpFoundation\Session\Storage\Handler\RedisSessionHandler;
use Symfony\Component\HttpFoundation\Session\Storage\NativeSessionStorage;

function session(): Session
{
    static $session = null;
    if ($session === null) {
        $redis = new Redis();
        $redis->connect(host(), port());
        $handler = new RedisSessionHandler($redis, ['ttl' => TTL]);
        $session = new Session(new NativeSessionStorage([], $handler));
        $session->start();
    }
    return $session;
}

$pages = [
    'POST /login' => function () {
        session()->migrate(true);
        session()->set('user', $_GET['user']);
        session()->save();
        return 'ok';
    },
    'GET /me' => function () {
        $user = session()->get('user', '');
        if ($user === '') {
            // Else every visitor gets a session.
            session()->invalidate();
        }
        session()->save();
        return $user;
    },
    'POST /count' => function () {
        session()->set('count', session()->get('count', 0) + 1);
        $count = session()->get('count');
        session()->save();
        return (string) $count;
    },
    'POST /rotate' => function () {
        session()->migrate(true);
        session()->save();
        return 'ok';
    },
    'POST /logout' => function () {
        session()->invalidate();
        session()->save();
        return 'ok';
    },
];
page($pages, [
    'name' => 'Symfony RedisSessionHandler',
    'version' => 'symfony/http-foundation ' . packaged('php-symfony-http-foundation') . ', phpredis ' . phpversion('redis'),
    'config' => "\$redis = new Redis(); \$redis->connect('127.0.0.1', 6379);\n"
        . 'new Session(new NativeSessionStorage([], new RedisSessionHandler($redis)));',
    'keys' => 'sf_s*',
    'touch' => true,
    'rotate' => true,
]);
