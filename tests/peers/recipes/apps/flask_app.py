import os

from flask import Flask
from nango_callback import nango_callback

app = Flask(__name__)
app.register_blueprint(nango_callback)
app.run("127.0.0.1", int(os.environ["PORT"]))
