"""Callbacks in FastAPI. The first segment of the path selects one."""

import os

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse

app = FastAPI()
NANGO = "https://api.nango.dev/"
METHODS = ["GET", "POST"]


def raw(request):
    query = request.scope["query_string"].decode("latin-1")
    return f"?{query}" if query else ""


@app.api_route("/correct/{flow:path}", methods=METHODS)
def correct(flow: str, request: Request):
    return Response(status_code=308, headers={"Location": NANGO + flow + raw(request), "Cache-Control": "no-store"})


# The status is 307.
@app.api_route("/default/{flow:path}", methods=METHODS)
def default(flow: str, request: Request):
    return RedirectResponse(NANGO + flow + raw(request))


@app.api_route("/redirect/{flow:path}", methods=METHODS)
def redirect(flow: str, request: Request):
    return RedirectResponse(NANGO + flow + raw(request), 308, {"Cache-Control": "no-store"})


@app.api_route("/params/{flow:path}", methods=METHODS)
def params(flow: str, request: Request):
    return RedirectResponse(f"{NANGO}{flow}?{request.query_params}", 308, {"Cache-Control": "no-store"})


# A callback with an error has no code.
@app.api_route("/typed/{flow:path}", methods=METHODS)
def typed(flow: str, code: str, state: str):
    return RedirectResponse(f"{NANGO}{flow}?code={code}&state={state}", 308, {"Cache-Control": "no-store"})


uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")
