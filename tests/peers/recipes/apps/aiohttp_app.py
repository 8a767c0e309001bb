import os

from aiohttp import web
from nango_callback import nango_callback

app = web.Application()
app.add_routes(nango_callback)
web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]), print=None)
