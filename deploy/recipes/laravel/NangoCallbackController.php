<?php

namespace App\Http\Controllers;

use Illuminate\Http\Request;
use Illuminate\Http\Response;

class NangoCallbackController
{
    public function __invoke(Request $request, string $target): Response
    {
        $form = $request->isMethod('POST');
        if ($form && !str_starts_with($request->header('Content-Type', ''), 'application/x-www-form-urlencoded')) {
            return response('', 415);
        }
        // The query as received: `$request->query()` would have to be encoded again, which changes it.
        $parts = [$request->server('QUERY_STRING', ''), $form ? $request->getContent() : ''];
        $query = implode('&', array_filter($parts, 'strlen'));

        return response('', $form ? 303 : 308, [
            'Location' => $query === '' ? $target : "$target?$query",
            'Cache-Control' => 'no-store',
        ]);
    }
}
