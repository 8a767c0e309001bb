<?php

(function (): void {
    $targets = [
        // @EACH@
        '@PATH@' => '@TARGET@',
        // @END@
    ];
    // The query as received: `$_GET` would have to be encoded again, which changes it.
    [$path, $query] = explode('?', $_SERVER['REQUEST_URI'], 2) + [1 => ''];
    if (!isset($targets[$path])) {
        return;
    }
    $method = $_SERVER['REQUEST_METHOD'];
    $form = $method === 'POST' && str_starts_with($_SERVER['CONTENT_TYPE'] ?? '', 'application/x-www-form-urlencoded');
    if (!$form && $method !== 'GET' && $method !== 'HEAD') {
        http_response_code(405);
        exit;
    }
    $parts = [$query, $form ? file_get_contents('php://input') : ''];
    $query = implode('&', array_filter($parts, 'strlen'));
    header('Cache-Control: no-store');
    header('Location: ' . $targets[$path] . ($query === '' ? '' : "?$query"), true, $form ? 303 : 308);
    exit;
})();
