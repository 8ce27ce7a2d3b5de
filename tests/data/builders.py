"""TFDS builders whose files come from a server that the test runs.

The server's address is read when it is needed, so that a process started by a
test has it too.
"""

import functools
import hashlib
import http.server
import os
import threading
import time
from typing import ClassVar

import tensorflow_datasets as tfds

ADDRESS = "FLAN_JAX_TEST_SERVER"


def content(name: str) -> bytes:
  """What a right answer for a file holds: 40 rows, by the file's name."""
  return "".join(f"{name} row {i}\n" for i in range(40)).encode()


class _Known:
  """`url_infos` of a builder: what TFDS reads from checksums.tsv."""

  def __init__(self, *names: str):
    self.names = names

  def __get__(self, builder, owner):
    out = {}
    for name in self.names:
      data = content(name)
      out[f"{os.environ[ADDRESS]}/{name}"] = tfds.download.checksums.UrlInfo(
        size=len(data),
        checksum=hashlib.sha256(data).hexdigest(),
        filename=name,
      )
    return out


class _Lines(tfds.core.GeneratorBasedBuilder):
  """One row a line of one file."""

  VERSION = tfds.core.Version("1.0.0")
  FILE = "lines.txt"

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict({"text": tfds.features.Text()}),
    )

  def _split_generators(self, dl_manager):
    path = dl_manager.download(f"{os.environ[ADDRESS]}/{self.FILE}")
    return {"train": self._generate_examples(path)}

  def _generate_examples(self, path):
    for i, line in enumerate(path.read_text().splitlines()):
      yield i, {"text": line}


class MadeLines(_Lines):
  url_infos = _Known("lines.txt")


class MadeOther(_Lines):
  FILE = "other.txt"
  url_infos = _Known("other.txt")


class MadeUnregistered(_Lines):
  """TFDS knows neither size nor checksum."""

  FILE = "unregistered.txt"


class MadeOld(_Lines):
  """The code makes 2.0.0 alone."""

  VERSION = tfds.core.Version("2.0.0")


class MadePair(_Lines):
  """Two configs; the second fetches two files."""

  BUILDER_CONFIGS: ClassVar = [
    tfds.core.BuilderConfig(name="one", version="1.0.0"),
    tfds.core.BuilderConfig(name="two", version="1.0.0"),
  ]
  VERSION = None
  url_infos = _Known("a.txt", "b.txt")

  def _split_generators(self, dl_manager):
    names = ["a.txt", "b.txt"][: 1 + (self.builder_config.name == "two")]
    paths = dl_manager.download([f"{os.environ[ADDRESS]}/{n}" for n in names])
    return {"train": self._generate_examples(paths[0])}


class MadeByHand(_Lines):
  MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Ask for lines.txt
    by letter.
  """

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples(dl_manager.manual_dir / self.FILE)}


class MadeBroken(_Lines):
  """Stops amid the rows."""

  FILE = "broken.txt"
  url_infos = _Known("broken.txt")

  def _generate_examples(self, path):
    yield 0, {"text": "one"}
    raise ValueError("row 1\nhas no end")


class Server:
  """Answers each file as it is told to; each answer is for one request.

  Attributes:
    answers: file -> answers in turn, "right" after the last: "late" waits a
      second, "wrong", "truncated", "missing" (404), "broken" (500).
    asked: files in the order they were asked for.
  """

  def __init__(self):
    self.answers: dict[str, list[str]] = {}
    self.asked: list[str] = []
    handler = functools.partial(_Handler, self)
    self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    self._thread = threading.Thread(target=self._http.serve_forever)
    self._thread.start()

  @property
  def address(self) -> str:
    return f"http://127.0.0.1:{self._http.server_port}"

  def close(self):
    self._http.shutdown()
    self._thread.join()
    self._http.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
  def __init__(self, server: Server, *args):
    self._told = server
    super().__init__(*args)

  def do_GET(self):
    name = self.path.strip("/")
    self._told.asked.append(name)
    waiting = self._told.answers.get(name, [])
    answer = waiting.pop(0) if waiting else "right"
    if answer in ("missing", "broken"):
      self.send_error({"missing": 404, "broken": 500}[answer])
      return
    if answer == "late":
      time.sleep(1)
    data = content(name)
    sent = data[::-1] if answer == "wrong" else data
    self.send_response(200)
    self.send_header("Content-Length", str(len(sent)))
    self.end_headers()
    self.wfile.write(sent[:50] if answer == "truncated" else sent)
    self.close_connection = True

  def log_message(self, *args):
    del args
