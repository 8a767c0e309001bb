"""Callbacks in Flask. The first segment of the path selects one."""

import os
from urllib.parse import urlencode

from flask import Flask, Response, redirect, request

app = Flask(__name__)
METHODS = ["GET", "POST"]


def raw():
    query = request.query_string.decode("latin-1")
    return f"?{query}" if query else ""


@app.after_request
def no_store(response):
    response.headers["Cache-Control"] = "no-store"
    return response


@app.route("/correct/<path:flow>", methods=METHODS)
def correct(flow):
    response = Response(status=308)
    response.headers["Location"] = f"https://api.nango.dev/{flow}{raw()}"
    return response


@app.route("/redirect/<path:flow>", methods=METHODS)
def usual(flow):
    return redirect(f"https://api.nango.dev/{flow}{raw()}", 308)


@app.route("/default/<path:flow>", methods=METHODS)
def default(flow):
    return redirect(f"https://api.nango.dev/{flow}{raw()}")


@app.route("/args/<path:flow>", methods=METHODS)
def args(flow):
    return redirect(f"https://api.nango.dev/{flow}?{urlencode(request.args)}", 308)


@app.route("/decoded/<path:flow>", methods=METHODS)
def decoded(flow):
    query = "&".join(f"{name}={value}" for name, value in request.args.items(multi=True))
    return redirect(f"https://api.nango.dev/{flow}?{query}", 308)


app.run(host="127.0.0.1", port=int(os.environ["PORT"]), threaded=True)
