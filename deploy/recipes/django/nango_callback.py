from django.http import HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods


@csrf_exempt
@require_http_methods(["GET", "HEAD", "POST"])
def redirect_to_nango(request, target):
    form = request.method == "POST"
    if form and request.content_type != "application/x-www-form-urlencoded":
        return HttpResponse(status=415)
    # The query as received: `request.GET` would have to be encoded again, which changes it.
    parts = [request.META["QUERY_STRING"], request.body.decode("latin-1") if form else ""]
    query = "&".join(filter(None, parts))
    # `redirect` would encode the URL again.
    response = HttpResponse(status=303 if form else 308)
    response["Location"] = f"{target}?{query}" if query else target
    response["Cache-Control"] = "no-store"
    # Without them, `SecurityMiddleware` sets `same-origin` for both, and the first one separates the popup
    # from the page that opened it.
    response["Cross-Origin-Opener-Policy"] = "unsafe-none"
    response["Referrer-Policy"] = "strict-origin-when-cross-origin"
    return response


urlpatterns = [
    path(url.lstrip("/"), redirect_to_nango, {"target": target})
    for url, target in [
        # @EACH@
        ("@PATH@", "@TARGET@"),
        # @END@
    ]
]
