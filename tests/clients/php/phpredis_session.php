<?php
// The session handler of the extension phpredis. Its settings come by `-d`.

require __DIR__ . '/pages.php';

$locks = (bool) ini_get('redis.session.locking_enabled');
page(native_pages(), [
    'name' => 'phpredis session handler' . ($locks ? ' with locking' : ''),
    'version' => 'phpredis ' . phpversion('redis') . ', PHP ' . PHP_MAJOR_VERSION . '.' . PHP_MINOR_VERSION,
    'config' => "session.save_handler = redis\nsession.save_path = \"tcp://127.0.0.1:6379\""
        . ($locks ? "\nredis.session.locking_enabled = 1" : ''),
    'keys' => 'PHPREDIS_SESSION:' . str_repeat('?', (int) ini_get('session.sid_length')),
    'touch' => true,
    'rotate' => true,
    'lock' => $locks,
]);
