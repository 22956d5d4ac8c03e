"""What gunicorn loads. Opens nothing before the first request."""

from typing import Any

from api import wiring
from api.app import create_app
from shared import settings

app = create_app(lambda: wiring.make(settings.load()))
_answer = app.wsgi_app


def _ending_connections(environ: Any, start_response: Any) -> Any:
    """Gunicorn leaves out what an application says of its connection: so its own response is told to end it."""

    def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
        response = getattr(start_response, "__self__", None)
        if ("Connection", "close") in headers and response is not None:
            response.force_close()
        return start_response(status, headers, *more)

    return _answer(environ, start)


app.wsgi_app = _ending_connections  # type: ignore[method-assign]
