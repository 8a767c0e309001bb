"""Callbacks in aiohttp. The first segment of the path selects one."""

import os
from urllib.parse import urlencode

from aiohttp import web

NO_STORE = {"Cache-Control": "no-store"}


def target(request):
    return "https://api.nango.dev/" + request.match_info["flow"]


async def correct(request):
    _, mark, query = request.raw_path.partition("?")
    return web.Response(status=308, headers={"Location": target(request) + mark + query, **NO_STORE})


async def redirect(request):
    _, mark, query = request.raw_path.partition("?")
    raise web.HTTPPermanentRedirect(target(request) + mark + query, headers=NO_STORE)


# `query_string` is decoded.
async def decoded(request):
    raise web.HTTPPermanentRedirect(f"{target(request)}?{request.query_string}", headers=NO_STORE)


async def rebuilt(request):
    raise web.HTTPPermanentRedirect(f"{target(request)}?{urlencode(dict(request.query))}", headers=NO_STORE)


async def endless(request):
    _, mark, query = request.raw_path.partition("?")
    headers = {"Location": target(request) + mark + query, **NO_STORE}
    response = web.StreamResponse(status=308, headers=headers)
    await response.prepare(request)
    while True:
        await response.write(b"x" * 1024)


app = web.Application(client_max_size=1 << 20)
for handler in (correct, redirect, decoded, rebuilt, endless):
    app.router.add_route("*", f"/{handler.__name__}/{{flow:.*}}", handler)
web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]), print=None)
