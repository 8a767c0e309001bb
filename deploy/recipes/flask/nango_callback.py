from flask import Blueprint, Response, abort, request

nango_callback = Blueprint("nango_callback", __name__)


class Redirect(Response):
    def get_wsgi_headers(self, environ):
        # Werkzeug encodes brackets and braces in the URL.
        headers = super().get_wsgi_headers(environ)
        headers["Location"] = self.headers["Location"]
        return headers


def redirect_to_nango(target):
    form = request.method == "POST"
    if form and request.mimetype != "application/x-www-form-urlencoded":
        abort(415)
    # The query as received: `request.args` would have to be encoded again, which changes it.
    parts = [request.query_string, request.get_data() if form else b""]
    query = b"&".join(filter(None, parts)).decode("latin-1")
    # `flask.redirect` would encode the URL again.
    response = Redirect(status=303 if form else 308)
    response.headers["Location"] = f"{target}?{query}" if query else target
    response.headers["Cache-Control"] = "no-store"
    return response


for path, target in [
    # @EACH@
    ("@PATH@", "@TARGET@"),
    # @END@
]:
    nango_callback.add_url_rule(
        path, view_func=redirect_to_nango, methods=["GET", "POST"], defaults={"target": target}
    )
