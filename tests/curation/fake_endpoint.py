"""An OpenAI-compatible endpoint on loopback that misbehaves when asked to."""

import collections
import contextlib
import dataclasses
import http.server
import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Say:
  """An answer; `top` are the likeliest first tokens with log-probabilities."""

  text: str = "yes"
  finish: str = "stop"
  top: tuple[tuple[str, float], ...] = ()
  usage: tuple[int, int] | None = (10, 2)
  delay: float = 0.0


@dataclasses.dataclass(frozen=True)
class Status:
  """A status other than 200."""

  code: int
  body: str = '{"error": {"message": "it went wrong"}}'
  headers: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Raw:
  """Bytes as they are: `promised` is the length the header claims."""

  body: bytes
  promised: int | None = None
  drip: float = 0.0


class Server:
  """A running endpoint.

  Attributes:
    behave: f(prompt, times it was asked before) -> Say, Status, Raw or None,
      which closes the connection without a word.
    asked: (prompt, JSON body, headers) of every POST, in order.
  """

  def __init__(self, behave: Callable[[str, int], Any], port: int = 0):
    self.behave = behave
    self.asked: list[tuple[str, dict, dict]] = []
    self.looked = 0
    self._lock = threading.Lock()
    self._times: collections.Counter[str] = collections.Counter()
    outer = self

    class Handler(http.server.BaseHTTPRequestHandler):
      protocol_version = "HTTP/1.1"

      def log_message(self, *_):
        pass

      def do_GET(self):
        outer.looked += 1
        _send(self, 200, b'{"data": []}')

      def do_POST(self):
        length = int(self.headers["content-length"])
        body = json.loads(self.rfile.read(length))
        with contextlib.suppress(ConnectionError):
          outer._answer(self, body)

    class Http(http.server.ThreadingHTTPServer):
      daemon_threads = True
      request_queue_size = 64

      def handle_error(self, *_):
        pass

    self._http = Http(("127.0.0.1", port), Handler)
    self.port = self._http.server_address[1]
    self.url = f"http://127.0.0.1:{self.port}/v1"
    self._thread = threading.Thread(
      target=self._http.serve_forever, args=(0.02,), daemon=True
    )
    self._thread.start()

  @property
  def prompts(self) -> list[str]:
    return [prompt for prompt, _, _ in self.asked]

  def close(self):
    self._http.shutdown()
    self._http.server_close()
    self._thread.join()

  def _answer(self, handler, body):
    chat = handler.path.endswith("/chat/completions")
    prompt = body["messages"][-1]["content"] if chat else body["prompt"]
    with self._lock:
      times = self._times[prompt]
      self._times[prompt] += 1
      self.asked.append((prompt, body, dict(handler.headers)))
    act = self.behave(prompt, times)
    if act is None:
      handler.close_connection = True
      handler.connection.close()
    elif isinstance(act, Status):
      _send(handler, act.code, act.body.encode(), act.headers)
    elif isinstance(act, Raw):
      handler.close_connection = True
      promised = act.promised or len(act.body)
      _head(handler, 200, promised)
      for i in range(len(act.body)):
        handler.wfile.write(act.body[i : i + 1])
        handler.wfile.flush()
        time.sleep(act.drip)
    else:
      time.sleep(act.delay)
      _send(handler, 200, json.dumps(_answer(act, body, chat)).encode())


@contextlib.contextmanager
def serving(behave: Callable[[str, int], Any] = lambda prompt, n: Say()):
  server = Server(behave)
  try:
    yield server
  finally:
    server.close()


def free_port() -> int:
  """A port on which nothing listens now."""
  import socket

  with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    return s.getsockname()[1]


def _answer(act: Say, body, chat) -> dict:
  choice: dict[str, Any] = {"index": 0, "finish_reason": act.finish}
  top = dict(act.top)
  if chat:
    choice["message"] = {"role": "assistant", "content": act.text}
    if body.get("logprobs"):
      tokens = [{"token": t, "logprob": p} for t, p in top.items()]
      first = {"token": act.text, "logprob": -0.5, "top_logprobs": tokens}
      choice["logprobs"] = {"content": [first]}
  else:
    choice["text"] = act.text
    if "logprobs" in body:
      choice["logprobs"] = {
        "tokens": [act.text], "token_logprobs": [-0.5], "top_logprobs": [top],
      }
  out = {"id": "1", "choices": [choice]}
  if act.usage:
    prompt, completion = act.usage
    out["usage"] = {
      "prompt_tokens": prompt, "completion_tokens": completion,
      "total_tokens": prompt + completion,
    }
  return out


def _send(handler, code, body, headers=()):
  _head(handler, code, len(body), headers)
  handler.wfile.write(body)


def _head(handler, code, length, headers=()):
  handler.send_response(code)
  handler.send_header("Content-Type", "application/json")
  handler.send_header("Content-Length", str(length))
  for name, value in dict(headers).items():
    handler.send_header(name, value)
  handler.end_headers()
