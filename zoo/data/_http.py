import urllib.request
from concurrent.futures import Future
from http.client import HTTPException, HTTPResponse
from threading import Thread
from urllib.error import HTTPError


def fetch(url: str, timeout: float) -> bytes:
    """Return the content of a URL, or raise an ``OSError`` if there is no answer within ``timeout`` seconds."""
    answer: Future[HTTPResponse] = Future()

    def request() -> None:
        try:
            answer.set_result(urllib.request.urlopen(url, timeout=timeout))
        except Exception as error:
            answer.set_exception(error)

    # urlopen's timeout does not cover name resolution. So the request runs in a daemon thread, which does not delay the
    # end of the program, and the wait is bounded here.
    Thread(target=request, daemon=True).start()
    try:
        with answer.result(timeout=timeout) as response:
            return response.read()
    except TimeoutError:
        raise TimeoutError(f"no response within {timeout:g} seconds") from None
    except HTTPError as error:
        error.close()  # it holds on to the connection
        raise
    except HTTPException as error:
        raise ConnectionError(f"the transfer was interrupted ({error})") from error
