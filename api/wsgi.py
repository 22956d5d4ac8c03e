"""What gunicorn loads. Opens nothing before the first request."""

from api import wiring
from api.app import create_app
from shared import settings

app = create_app(lambda: wiring.make(settings.load()))
