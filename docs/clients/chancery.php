#!/usr/bin/env php
<?php
// Issue and revoke from PHP, with curl (Debian: php-cli, php-curl). JSON-RPC, since the extension xmlrpc writes
// each octet of UTF-8 as a character of its own.
//
// chancery.php URL FOLDER issue PURPOSE NAME REQUEST_ID
// chancery.php URL FOLDER revoke SERIAL REASON REQUEST_ID
//
// URL is https://HOST:PORT/rpc; FOLDER holds root.pem, caller.pem and caller.key. Exit code 0: done, 1: refused,
// 2: the call is wrong, 3: it is not known how it ended; run the same command again.
declare(strict_types=1);

// With these codes ok is false and nothing was refused: the same call can be made again.
const TROUBLE = ['outcome.unknown', 'keyroom.unreachable', 'keyroom.behind', 'store.behind', 'store.fork'];
const TROUBLE_FAULTS = [-32603, 4290]; // an internal error; too many calls at once

function finish(int $code, string $text): never
{
    fwrite(STDERR, $text . "\n");
    exit($code);
}

function say(string $text): void
{
    if (@fwrite(STDOUT, $text . "\n") === false) { // echo would not tell
        finish(3, 'done, and not written: ' . error_get_last()['message'] . ' - run the same command again');
    }
}

function post(string $url, string $folder, string $body): ?array
{
    $curl = curl_init($url);
    curl_setopt_array($curl, [
        CURLOPT_CAINFO => "$folder/root.pem",
        CURLOPT_SSLCERT => "$folder/caller.pem",
        CURLOPT_SSLKEY => "$folder/caller.key",
        CURLOPT_POSTFIELDS => $body,
        CURLOPT_HTTPHEADER => ['Content-Type: application/json'],
        CURLOPT_RETURNTRANSFER => true,
        CURLOPT_FAILONERROR => true,
        CURLOPT_TIMEOUT => 90, // the service gives up after 60 seconds
    ]);
    $text = curl_exec($curl);
    return is_string($text) ? json_decode($text, true) : null;
}

// Gives ok, msg and detail. params has a request_id, so asking again never does anything twice.
function ask(string $url, string $folder, string $method, array $params): array
{
    $body = json_encode(['jsonrpc' => '2.0', 'id' => 1, 'method' => $method, 'params' => $params], JSON_THROW_ON_ERROR);
    $why = '';
    foreach ([1, 2, 4, 0] as $wait) {
        $reply = post($url, $folder, $body);
        if (isset($reply['error'])) {
            $why = $reply['error']['message'];
            if (!in_array($reply['error']['code'], TROUBLE_FAULTS, true)) {
                finish(2, "fault {$reply['error']['code']} $why");
            }
        } elseif (isset($reply['result'])) {
            $answer = $reply['result'];
            $why = $answer['msg'];
            if ($answer['ok'] || !in_array($answer['detail']['code'], TROUBLE, true)) {
                return $answer;
            }
        } else {
            $why = 'no answer';
        }
        sleep($wait);
    }
    finish(3, "not known how it ended: $why - run the same command again");
}

if ($argc !== 7) {
    finish(2, 'usage: chancery.php URL FOLDER issue PURPOSE NAME ID | revoke SERIAL REASON ID');
}
[, $url, $folder, $what, $first, $second, $id] = $argv;
$answer = match ($what) {
    'issue' => ask($url, $folder, 'ca.issue', ['purpose' => $first, 'cn' => $second, 'request_id' => $id]),
    'revoke' => ask($url, $folder, 'ca.revoke', ['serial' => $first, 'reason' => $second, 'request_id' => $id]),
    default => finish(2, 'issue or revoke'),
};
$detail = $answer['detail'];
if (!$answer['ok']) {
    finish(1, "refused: {$answer['msg']} {$detail['code']}");
}
say($answer['msg']);
if (isset($detail['revoked_at'])) {
    exit(1); // a retry, and somebody has revoked the certificate since
}
if (isset($detail['pkcs12'])) {
    // The same request_id always gets the same octets, so the file can be written again.
    umask(0077);
    if (file_put_contents("$id.p12", base64_decode($detail['pkcs12'], true)) === false) {
        finish(3, "done, and not written: $id.p12 - run the same command again");
    }
    say('password ' . $detail['password']);
}
