<?php

namespace App\Controller;

use Symfony\Component\HttpFoundation\Request;
use Symfony\Component\HttpFoundation\Response;

final class NangoCallbackController
{
    public function __invoke(Request $request, string $target): Response
    {
        $form = $request->isMethod('POST');
        if ($form && !str_starts_with($request->headers->get('Content-Type', ''), 'application/x-www-form-urlencoded')) {
            return new Response('', 415);
        }
        // The query as received: `$request->query` would have to be encoded again, which changes it.
        $parts = [$request->server->get('QUERY_STRING', ''), $form ? $request->getContent() : ''];
        $query = implode('&', array_filter($parts, 'strlen'));

        return new Response('', $form ? 303 : 308, [
            'Location' => $query === '' ? $target : "$target?$query",
            'Cache-Control' => 'no-store',
        ]);
    }
}
