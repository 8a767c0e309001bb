from fastapi import APIRouter, HTTPException, Request, Response

nango_callback = APIRouter(include_in_schema=False)


def redirect_to(target: str):
    async def redirect_to_nango(request: Request) -> Response:
        form = request.method == "POST"
        content_type = request.headers.get("content-type", "")
        if form and not content_type.startswith("application/x-www-form-urlencoded"):
            raise HTTPException(415)
        # The query as received: `request.query_params` would have to be encoded again, which changes it.
        parts = [request.scope["query_string"], await request.body() if form else b""]
        query = b"&".join(filter(None, parts)).decode("latin-1")
        # The server may not check headers: a form must not add lines to the response.
        if any(character <= " " or character == "\x7f" for character in query):
            raise HTTPException(400)
        # `RedirectResponse` would encode the URL again.
        return Response(
            status_code=303 if form else 308,
            headers={"Location": f"{target}?{query}" if query else target, "Cache-Control": "no-store"},
        )

    return redirect_to_nango


for path, target in [
    # @EACH@
    ("@PATH@", "@TARGET@"),
    # @END@
]:
    nango_callback.add_api_route(path, redirect_to(target), methods=["GET", "HEAD", "POST"])
