"""What a person sees while a run goes on: tables and one progress bar."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import rich.console
import rich.progress
import rich.table


class Display:
  """Prints to the terminal; plain lines where there is no terminal."""

  def __init__(
    self, console: rich.console.Console | None = None, quiet: bool = False
  ):
    """Args:
    console: where to; None: the terminal.
    quiet: prints nothing, as processes do that are not the first.
    """
    # A log file has no width of its own; 80 columns would fold the tables.
    self.console = console or rich.console.Console(quiet=quiet)
    if not self.console.is_terminal:
      self.console.width = max(self.console.width, 110)

  def say(self, text: str):
    self.console.print(text, highlight=False, markup=False, soft_wrap=True)

  def table(
    self,
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
  ):
    """Prints a table; numbers are right-aligned."""
    rows = [tuple(row) for row in rows]
    table = rich.table.Table(
      title=title, title_justify="left", box=None, pad_edge=False
    )
    for i, column in enumerate(columns):
      numeric = rows and all(
        isinstance(r[i], int | float) or r[i] == "" for r in rows
      )
      # Folded where it does not fit: a name is never cut.
      table.add_column(
        column, justify="right" if numeric else "left", overflow="fold"
      )
    for row in rows:
      table.add_row(*(_text(value) for value in row))
    self.console.print(table, highlight=False)

  def steps(self, total: int, start: int) -> "Steps":
    """A progress bar over training steps."""
    return Steps(self, total, start)


def answered(
  display: Display, seconds: float = 10.0
) -> Callable[[int, int], None]:
  """A function that says (done, of how many), at most every few seconds.

  The last one is always said.
  """
  said = time.monotonic()

  def say(done: int, total: int):
    nonlocal said
    if done >= total or time.monotonic() - said >= seconds:
      said = time.monotonic()
      display.say(f"{100 * done / max(total, 1):.0f} % answered")

  return say


def _text(value: object) -> str:
  if isinstance(value, float):
    return f"{value:,.1f}"
  if isinstance(value, int):
    return f"{value:,}"
  return rich.markup.escape(str(value))


class Steps:
  """Loss, tokens per second and time left, over the steps of a run."""

  def __init__(self, display: Display, total: int, start: int):
    self._display = display
    self._total, self._start = total, start
    self._began = time.monotonic()
    self._bar = rich.progress.Progress(
      rich.progress.TextColumn("step {task.completed:,}/{task.total:,}"),
      rich.progress.BarColumn(bar_width=30),
      rich.progress.TextColumn("{task.fields[status]}"),
      rich.progress.TimeRemainingColumn(elapsed_when_finished=True),
      console=display.console,
      disable=not display.console.is_terminal,
    )
    self._task = self._bar.add_task("", total=total, completed=start, status="")

  def __enter__(self) -> "Steps":
    self._bar.start()
    return self

  def __exit__(self, *_):
    self._bar.stop()

  def pause(self):
    """Takes the bar off the screen while something else is shown."""
    self._bar.stop()

  def resume(self):
    self._bar.start()

  def go_back(self, step: int):
    """Steps after `step` are taken again."""
    self._start, self._began = step, time.monotonic()

  def update(self, step: int, scalars: Mapping[str, float]):
    """Shows a logged step.

    Args:
      step: steps done so far.
      scalars: `train/loss` in nats a token, `train/tokens_per_second`.
    """
    loss = scalars["train/loss"]
    rate = scalars["train/tokens_per_second"]
    status = f"loss {loss:.3f}  {rate:,.0f} tokens/s"
    self._bar.update(self._task, completed=step, status=status)
    if not self._display.console.is_terminal:
      done = step - self._start
      left = (time.monotonic() - self._began) / done * (self._total - step)
      self._display.say(
        f"step {step:,}/{self._total:,}  {status}  {_clock(left)} left"
      )


def _clock(seconds: float) -> str:
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f"{hours}h{minutes:02d}m"
  return f"{minutes}m{seconds:02d}s"
