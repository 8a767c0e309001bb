<?php
// Callbacks in PHP. The first segment of the path selects one.

$path = explode('/', explode('?', $_SERVER['REQUEST_URI'], 2)[0]);
$target = 'https://api.nango.dev/' . implode('/', array_slice($path, 2));
$raw = $_SERVER['QUERY_STRING'] ?? '';
$query = $raw === '' ? '' : "?$raw";

if ($path[1] === 'session') {
    session_save_path(__DIR__);
    session_start();
} elseif ($path[1] !== 'cached') {
    header('Cache-Control: no-store');
}
switch ($path[1]) {
    case 'correct':
    case 'cached':
    case 'session':
        header("Location: $target$query", true, 308);
        break;
    case 'default':
        header("Location: $target$query");
        break;
    case 'built':
        header("Location: $target?" . http_build_query($_GET), true, 308);
        break;
    case 'decoded':
        header("Location: $target?" . str_replace(["\r", "\n"], '', urldecode($raw)), true, 308);
        break;
    case 'code':
        header("Location: $target?" . http_build_query(['code' => $_GET['code'] ?? '', 'state' => $_GET['state'] ?? '']), true, 308);
        break;
    case 'exit':
        header("HTTP/1.1 308 Permanent Redirect");
        header("Location: $target" . preg_replace('/\?.*/', '', $query), true, 308);
        break;
    default:
        http_response_code(404);
}
