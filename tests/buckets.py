"""An object store on this machine, which stands for Cloud Storage.

    with buckets.Store() as store, buckets.served(store.address):
      (epath.Path("gs://our-runs") / "x").write_text("there")

Objects are in memory and whole: nothing is appended to or renamed, and a folder
is what names have in common. TensorStore talks to it over HTTP, as to Cloud
Storage itself; `etils.epath`, whose TensorFlow has the address built in, through
`Client`. A process that is started with the environment of `Store.environment`
and calls `served` uses the same objects.
"""

import collections
import contextlib
import http.server
import io
import json
import os
import pathlib
import threading
import urllib.error
import urllib.parse
import urllib.request
from unittest import mock

from etils.epath import backend, gpath, stat_utils

_ADDRESS = "TENSORSTORE_GCS_HTTP_URL"
_METADATA = "GCE_METADATA_ROOT"


class Store:
  """Objects of all buckets by `bucket/name`, and the server of them.

  Attributes:
    objects: name -> content.
    written: names in the order of writing.
    full: whether nothing more is taken.
    closed: whether nothing is answered.
  """

  def __init__(self):
    self.objects: dict[str, bytes] = {}
    self.generations: dict[str, int] = collections.defaultdict(int)
    self.written: list[str] = []
    self.full = self.closed = False
    self.lock = threading.Lock()

  def __enter__(self) -> "Store":
    handler = type("Handler", (_Handler,), {"store": self})
    self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    self._thread = threading.Thread(
      target=self._server.serve_forever, args=(0.05,), daemon=True
    )
    self._thread.start()
    return self

  def __exit__(self, *_):
    self._server.shutdown()
    self._server.server_close()
    self._thread.join()

  @property
  def address(self) -> str:
    return f"http://127.0.0.1:{self._server.server_port}"

  @property
  def environment(self) -> dict[str, str]:
    """What makes TensorStore come here, and look for no credentials."""
    return {_ADDRESS: self.address, _METADATA: self.address[len("http://") :]}

  def add(self, name: str, folder: pathlib.Path) -> None:
    """Puts a folder's files in, below `name`."""
    for path in folder.rglob("*"):
      if path.is_file():
        inner = path.relative_to(folder).as_posix()
        self.objects[f"{name}/{inner}"] = path.read_bytes()

  def below(self, folder: str) -> dict[str, bytes]:
    """Objects below `bucket/folder`, by the rest of their names."""
    start = folder.rstrip("/") + "/"
    with self.lock:
      return {
        name.removeprefix(start): content
        for name, content in self.objects.items()
        if name.startswith(start) and not name.endswith("/")
      }


class _Handler(http.server.BaseHTTPRequestHandler):
  """The part of Cloud Storage's JSON interface that is asked for."""

  protocol_version = "HTTP/1.1"
  store: Store

  def log_message(self, *_):
    pass

  def _read(self):
    url = urllib.parse.urlsplit(self.path)
    asked = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
    body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
    _, found, rest = url.path.partition("/storage/v1/b/")
    bucket, _, name = rest.partition("/o")
    if not found:
      return None, asked, body
    name = asked.get("name") or urllib.parse.unquote(name.lstrip("/"))
    return f"{bucket}/{name}", asked, body

  def _answer(self, code: int, content=b"", generation: int | None = None):
    if not isinstance(content, bytes):
      content = json.dumps(content).encode()
    self.send_response(code)
    self.send_header("Content-Length", str(len(content)))
    if generation is not None:
      self.send_header("x-goog-generation", str(generation))
    self.end_headers()
    self.wfile.write(content)

  def _differs(self, name: str, asked) -> bool:
    """Whether the object is not the one that the request is for."""
    current = self.store.generations[name] if name in self.store.objects else 0
    return str(current) != asked.get("ifGenerationMatch", str(current))

  def _described(self, name: str):
    return {
      "name": name.partition("/")[2],
      "bucket": name.partition("/")[0],
      "size": str(len(self.store.objects[name])),
      "generation": str(self.store.generations[name]),
    }

  def do_GET(self):
    name, asked, _ = self._read()
    with self.store.lock:
      if name is None:
        return self._answer(404)
      if self.store.closed:
        return self._answer(403, {"error": {"message": "not for you"}})
      if name.endswith("/") and "alt" not in asked:
        start = name + asked.get("prefix", "")
        found = sorted(n for n in self.store.objects if n.startswith(start))
        return self._answer(200, {"items": [*map(self._described, found)]})
      if name not in self.store.objects:
        return self._answer(404)
      generation = self.store.generations[name]
      if asked.get("ifGenerationNotMatch") == str(generation):
        return self._answer(304, generation=generation)
      if self._differs(name, asked):
        return self._answer(412)
      if "alt" not in asked:
        return self._answer(200, self._described(name))
      content = self.store.objects[name]
    code, part = 200, self.headers.get("Range")
    if part:
      first, _, last = part.removeprefix("bytes=").partition("-")
      whole, code = len(content), 206
      start = int(first) if first else whole - int(last)
      end = int(last) + 1 if first and last else whole
      content = content[start:end]
      self.send_response(code)
      self.send_header("Content-Length", str(len(content)))
      self.send_header("Content-Range", f"bytes {start}-{end - 1}/{whole}")
      self.send_header("x-goog-generation", str(generation))
      self.end_headers()
      return self.wfile.write(content)
    return self._answer(code, content, generation)

  def do_POST(self):
    name, asked, body = self._read()
    with self.store.lock:
      if name is None:
        return self._answer(404)
      if self.store.full:
        return self._answer(403, {"error": {"message": "no more room"}})
      if self._differs(name, asked):
        return self._answer(412)
      self.store.objects[name] = body
      self.store.generations[name] += 1
      self.store.written.append(name)
      return self._answer(200, self._described(name))

  def do_DELETE(self):
    name, asked, _ = self._read()
    with self.store.lock:
      if name not in self.store.objects:
        return self._answer(404)
      if self._differs(name, asked):
        return self._answer(412)
      del self.store.objects[name]
      return self._answer(204)


class Client(backend.Backend):
  """gs:// paths of `etils.epath`, as TensorFlow has them of Cloud Storage."""

  def __init__(self, address: str):
    self.address = address

  def _ask(self, method: str, where: str, body: bytes | None = None) -> bytes:
    request = urllib.request.Request(
      self.address + where, data=body, method=method
    )
    try:
      with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()
    except urllib.error.HTTPError as error:
      if error.code == 404:
        raise FileNotFoundError(where) from None
      raise BucketError(f"{error.code} {error.read().decode()}") from None

  def _object(self, path, **asked) -> str:
    bucket, _, name = str(path).removeprefix("gs://").partition("/")
    query = f"?{urllib.parse.urlencode(asked)}" if asked else ""
    return (
      f"/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe='')}{query}"
    )

  def _below(self, path) -> dict[str, int]:
    """Names below a folder -> bytes; the folder's own mark is ''."""
    bucket, _, name = str(path).removeprefix("gs://").partition("/")
    start = f"{name.rstrip('/')}/" if name.strip("/") else ""
    query = urllib.parse.urlencode({"prefix": start})
    text = self._ask("GET", f"/storage/v1/b/{bucket}/o?{query}")
    return {
      item["name"].removeprefix(start): int(item["size"])
      for item in json.loads(text)["items"]
    }

  def _put(self, path, content: bytes):
    bucket, _, name = str(path).removeprefix("gs://").partition("/")
    query = urllib.parse.urlencode({"uploadType": "media", "name": name})
    self._ask("POST", f"/upload/storage/v1/b/{bucket}/o?{query}", content)

  @contextlib.contextmanager
  def open(self, path, mode):
    assert set(mode) <= set("rwbt"), f"a bucket cannot open for {mode!r}"
    if "r" in mode:
      raw = io.BytesIO(self._ask("GET", self._object(path, alt="media")))
      yield raw if "b" in mode else io.TextIOWrapper(raw, "utf-8")
      return
    raw = io.BytesIO()
    file = raw if "b" in mode else io.TextIOWrapper(raw, "utf-8")
    yield file
    file.flush()
    self._put(path, raw.getvalue())

  def exists(self, path):
    try:
      self._ask("GET", self._object(path))
      return True
    except FileNotFoundError:
      return self.isdir(path)

  def isdir(self, path):
    """False too where the store cannot be asked, as TensorFlow says."""
    try:
      return bool(self._below(path))
    except BucketError:
      return False

  def listdir(self, path):
    return sorted({name.partition("/")[0] for name in self._below(path)} - {""})

  def glob(self, path):
    path = str(path)
    folder, _, _ = path.partition("*")
    folder = folder.rpartition("/")[0]
    found = {
      f"{folder}/{'/'.join(parts[:depth])}"
      for name in self._below(folder)
      if (parts := name.strip("/").split("/"))
      for depth in range(1, len(parts) + 1)
    }
    return sorted(f for f in found if pathlib.PurePosixPath(f).match(path))

  def walk(self, top, *, top_down=True, on_error=None):
    raise NotImplementedError

  def makedirs(self, path, *, exist_ok=False, mode=None):
    self.mkdir(path, exist_ok=exist_ok)

  def mkdir(self, path, *, exist_ok=False, mode=None):
    if not exist_ok and self.exists(path):
      raise FileExistsError(path)
    self._put(f"{str(path).rstrip('/')}/", b"")

  def rmtree(self, path):
    found = self._below(path)
    if not found:
      raise FileNotFoundError(path)
    for name in found:
      self.remove(f"{str(path).rstrip('/')}/{name}")

  def remove(self, path):
    self._ask("DELETE", self._object(path))

  def rename(self, path, dst):
    """A folder's objects are copied one by one, and for a while in both."""
    for name in self._below(path):
      self.copy(f"{path}/{name}", f"{dst}/{name}", overwrite=False)
      self.remove(f"{path}/{name}")

  def replace(self, path, dst):
    self.rename(path, dst)

  def copy(self, path, dst, overwrite):
    self._put(dst, self._ask("GET", self._object(path, alt="media")))

  def stat(self, path):
    if self._below(path):
      return stat_utils.StatResult(True, 0, 0)
    described = json.loads(self._ask("GET", self._object(path)))
    return stat_utils.StatResult(
      False, int(described["size"]), int(described["generation"])
    )


class BucketError(Exception):
  """Neither an OSError nor a RuntimeError, as TensorFlow's are not."""


@contextlib.contextmanager
def served(store: Store | None = None):
  """Inside, gs:// is this store, or the one that the environment names."""
  environment = {} if store is None else store.environment
  with mock.patch.dict(os.environ, environment):
    client = Client(os.environ[_ADDRESS])
    real = gpath._GPath._backend.fget
    with mock.patch.object(
      gpath._GPath,
      "_backend",
      property(lambda self: client if self._uri_scheme else real(self)),
    ):
      yield
