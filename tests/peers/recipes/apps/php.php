<?php
require __DIR__ . '/nango-callback.php';
session_start();
http_response_code(404);
