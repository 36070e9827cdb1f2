import urllib.request
from concurrent.futures import Future
from http.client import HTTPException, HTTPResponse
from threading import Thread
from urllib.error import HTTPError


def fetch(url: str, patience: float) -> bytes:
    """Download what stands at ``url``.

    Args:
        url: http or https address.
        patience: seconds to wait for an answer, and again for each further piece of it.

    Raises:
        OSError: no network, no such page, a broken transfer, or no answer in time.

    Example:
        >>> fetch("data:,hello", patience=1.0)
        b'hello'
    """
    answer: Future[HTTPResponse] = Future()

    def ask() -> None:
        try:
            answer.set_result(urllib.request.urlopen(url, timeout=patience))
        except Exception as error:
            answer.set_exception(error)

    # A name server that hangs heeds no timeout. So a thread asks, one that does not hold up the end of the
    # program, and the wait is bounded here.
    Thread(target=ask, daemon=True).start()
    try:
        with answer.result(timeout=patience) as response:
            return response.read()
    except TimeoutError:
        raise TimeoutError(f"no answer in {patience:g} seconds") from None
    except HTTPError as error:
        error.close()  # it holds on to the connection
        raise
    except HTTPException as error:
        raise ConnectionError(f"the transfer broke off ({error})") from error
