"""One exchange over HTTP: a whole response, or why there is none."""

import asyncio
import dataclasses
import json
import time
from collections.abc import Mapping
from typing import Any

import httpx2

from flan_jax.endpoint import pace as pace_lib

# A body over this is no answer.
LONGEST_BODY = 64 * 2**20
SECRET = "[key]"


@dataclasses.dataclass(frozen=True)
class Failure:
  """An attempt that came to nothing.

  Attributes:
    reason: what happened.
    status: of HTTP; None: there was no whole response.
    body: of the response.
    after: seconds that the endpoint asks to wait.
    down: whether nothing took the connection.
    final: whether asking again would say the same.
  """

  reason: str
  status: int | None = None
  body: str = ""
  after: float | None = None
  down: bool = False
  final: bool = False


class Line:
  """A client together with where it asks.

  The key is in the client's headers; nothing that comes back has it, should
  the endpoint repeat it.
  """

  def __init__(
    self,
    client: httpx2.AsyncClient,
    base_url: str,
    url: str,
    secret: str | None,
    timeout: float,
  ):
    self._client, self._base_url, self._url = client, base_url, url
    self._secret, self._timeout = secret, timeout

  async def post(self, content: Any) -> tuple[str, float] | Failure:
    """Sends JSON; the body and the seconds of an answer with status 200."""
    started, limit = time.monotonic(), self._timeout
    try:
      async with (
        asyncio.timeout(limit),
        self._client.stream("POST", self._url, json=content) as response,
      ):
        parts, size = [], 0
        async for part in response.aiter_bytes():
          size += len(part)
          if size > LONGEST_BODY:
            return Failure(f"a body of over {LONGEST_BODY:,} bytes")
          parts.append(part)
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as e:
      return Failure(self._clean(_reason(e)), down=True)
    except (TimeoutError, httpx2.TimeoutException):
      return Failure(f"no whole response within {limit:g} seconds")
    except httpx2.HTTPError as e:
      return Failure(self._clean(_reason(e)))
    text = self._clean(b"".join(parts).decode("utf-8", "replace"))
    if response.status_code == 200:
      return text, time.monotonic() - started
    return Failure(
      f"HTTP {response.status_code}: {_message(text)}",
      response.status_code,
      text,
      pace_lib.retry_after(response.headers.get("retry-after")),
    )

  async def unreachable(self) -> str:
    """Why nothing listens there; "": something does, whatever it says."""
    url = self._base_url.rstrip("/") + "/models"
    try:
      async with (
        asyncio.timeout(min(10.0, self._timeout)),
        self._client.stream("GET", url),
      ):
        return ""
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as e:
      return self._clean(_reason(e))
    except (TimeoutError, httpx2.HTTPError):
      # It took the connection: what it makes of requests will be seen.
      return ""

  def _clean(self, text: str) -> str:
    """Without the key, should the endpoint repeat it."""
    return text.replace(self._secret, SECRET) if self._secret else text


def _message(text: str) -> str:
  """What an error's body says, short."""
  try:
    error = json.loads(text)["error"]
    text = error["message"] if isinstance(error, Mapping) else str(error)
  except (ValueError, KeyError, TypeError):
    pass
  return " ".join(text.split())[:200].rstrip(".") or "nothing more"


def _reason(error: BaseException) -> str:
  return f"{type(error).__name__}: {str(error) or 'nothing more'}".rstrip(".")
