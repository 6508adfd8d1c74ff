<?php
// The pages over PHP's own session functions, whatever the handler behind them is, and what the PHP applications share.

ini_set('display_errors', 'stderr');

const TTL = 1800;

function host(): string
{
    return getenv('REDIS_HOST') ?: '127.0.0.1';
}

function port(): int
{
    return (int) getenv('REDIS_PORT');
}

// The version of a Debian package. Its updates within a release are no news.
function packaged(string $package): string
{
    $version = shell_exec("dpkg-query --show --showformat='\${source:Upstream-Version}' " . escapeshellarg($package));
    return implode('.', array_slice(explode('.', trim((string) $version)), 0, 2));
}

function say(array $about): void
{
    echo json_encode($about + ['ttl' => TTL, 'keys' => '*'], JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE), "\n";
}

// Runs one of the pages that every application has.
function page(array $pages, array $about): void
{
    header('Content-Type: text/plain');
    $path = $_SERVER['REQUEST_METHOD'] . ' ' . parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
    if ($path === 'GET /about') {
        say($about);
        return;
    }
    try {
        echo $pages[$path]();
    } catch (Throwable $error) {
        http_response_code(500);
        echo $error;
    }
}

function start(): void
{
    if (!session_start()) {
        throw new RuntimeException('the session does not start');
    }
}

// Ends the request's session before the page is sent, so that the next request finds what this one wrote.
function finish(string $answer): string
{
    if (session_status() === PHP_SESSION_ACTIVE && !session_write_close()) {
        throw new RuntimeException('the session is not written');
    }
    return $answer;
}

function native_pages(): array
{
    return [
        'POST /login' => function () {
            start();
            session_regenerate_id(true);
            $_SESSION['user'] = $_GET['user'];
            return finish('ok');
        },
        'GET /me' => function () {
            start();
            $user = $_SESSION['user'] ?? '';
            if ($user === '') {
                // Else every visitor gets a session.
                session_destroy();
            }
            return finish($user);
        },
        'POST /count' => function () {
            start();
            $count = ($_SESSION['count'] ?? 0) + 1;
            // Long enough that requests which do not wait for each other lose counts.
            usleep(2000);
            $_SESSION['count'] = $count;
            return finish((string) $count);
        },
        'POST /rotate' => function () {
            start();
            session_regenerate_id(true);
            return finish('ok');
        },
        'POST /logout' => function () {
            start();
            $_SESSION = [];
            setcookie(session_name(), '', 1);
            session_destroy();
            return finish('ok');
        },
    ];
}
