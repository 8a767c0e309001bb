from aiohttp import web

nango_callback = web.RouteTableDef()


def redirect_to(target):
    async def redirect_to_nango(request):
        form = request.method == "POST"
        if form and request.content_type != "application/x-www-form-urlencoded":
            raise web.HTTPUnsupportedMediaType
        # The query as received: `request.query` would have to be encoded again, which changes it.
        parts = [request.raw_path.partition("?")[2], await request.text() if form else ""]
        query = "&".join(filter(None, parts))
        # aiohttp closes the connection if a header contains the end of a line, which a form may.
        if any(character <= " " or character == "\x7f" for character in query):
            raise web.HTTPBadRequest
        # `web.HTTPPermanentRedirect` would encode the URL again.
        return web.Response(
            status=303 if form else 308,
            headers={"Location": f"{target}?{query}" if query else target, "Cache-Control": "no-store"},
        )

    return redirect_to_nango


for path, target in [
    # @EACH@
    ("@PATH@", "@TARGET@"),
    # @END@
]:
    nango_callback.get(path)(redirect_to(target))
    nango_callback.post(path)(redirect_to(target))
