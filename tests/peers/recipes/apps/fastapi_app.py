import os

import uvicorn
from fastapi import FastAPI
from nango_callback import nango_callback

app = FastAPI()
app.include_router(nango_callback)
uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")
