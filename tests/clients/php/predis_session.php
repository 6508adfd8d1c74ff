<?php
// Predis' session handler.

require __DIR__ . '/pages.php';
require 'Predis/autoload.php';

$client = new Predis\Client(['host' => host(), 'port' => port()]);
$handler = new Predis\Session\Handler($client, ['gc_maxlifetime' => TTL]);
$handler->register();
page(native_pages(), [
    'name' => 'Predis session handler',
    'version' => 'Predis ' . Predis\Client::VERSION . ', PHP ' . PHP_MAJOR_VERSION . '.' . PHP_MINOR_VERSION,
    'config' => "\$client = new Predis\Client('tcp://127.0.0.1:6379');\n(new Predis\Session\Handler(\$client))->register();",
    // It writes what was not changed, too.
    'touch' => true,
    'rotate' => true,
]);
