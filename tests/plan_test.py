"""The plan of a job: what is read from a compiled program, and the command."""

import dataclasses
import doctest
import importlib.util
import math
import os
import pathlib
import re
import subprocess
import sys

import pytest

from flan_jax.errors import UserError
from flan_jax.planning import costs, hlo, report, roofline, sizing, topology

ROOT = pathlib.Path(__file__).resolve().parent.parent

# A loop of 3 layers: a weight is gathered, multiplied, and the result summed.
PROGRAM = """HloModule step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %s = f32[] add(%a, %b)
}

%all-reduce-scatter.1 (i: bf16[4,8]) -> bf16[2,8] {
  %i = bf16[4,8]{1,0:T(8,128)(2,1)} parameter(0)
  %r = bf16[4,8]{1,0} all-reduce(%i), channel_id=3, replica_groups={{0,1},{2,3}}, to_apply=%add
  ROOT %d = bf16[2,8]{1,0} dynamic-slice(%r), dynamic_slice_sizes={2,8}
}

%start (w: bf16[1,8,16]) -> (bf16[1,8,16], bf16[1,16,16]) {
  %w = bf16[1,8,16]{2,1,0} parameter(0)
  %g = bf16[1,16,16]{2,1,0} all-gather(%w), channel_id=7, replica_groups=mesh['a'=2,'b'=2] {'a'}, dimensions={1}
  ROOT %c = (bf16[1,8,16]{2,1,0}, bf16[1,16,16]{2,1,0}) custom-call(%g), custom_call_target="AsyncCollectiveStart"
}

%done (w: bf16[1,8,16]) -> bf16[1,16,16] {
  %w2 = bf16[1,8,16]{2,1,0} parameter(0)
  %g2 = bf16[1,16,16]{2,1,0} all-gather(%w2), channel_id=7, replica_groups=mesh['a'=2,'b'=2] {'a'}, dimensions={1}
  ROOT %c2 = bf16[1,16,16]{2,1,0} custom-call(%g2), custom_call_target="AsyncCollectiveDone"
}

%take (stack: bf16[3,8,16], i: s32[]) -> bf16[1,8,16] {
  %stack = bf16[3,8,16]{2,1,0} parameter(0)
  %n = s32[] parameter(1)
  ROOT %slice = bf16[1,8,16]{2,1,0} dynamic-slice(%stack, %n), dynamic_slice_sizes={1,8,16}
}

%body (t: (s32[], bf16[3,8,16], bf16[4,16])) -> (s32[], bf16[3,8,16], bf16[4,16]) {
  %t = (s32[], bf16[3,8,16]{2,1,0}, /*index=2*/bf16[4,16]{1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%t), index=0
  %ws = bf16[3,8,16]{2,1,0} get-tuple-element(%t), index=1
  %x = bf16[4,16]{1,0} get-tuple-element(%t), index=2
  %w.1 = bf16[1,8,16]{2,1,0} fusion(%ws, %i.1), kind=kLoop, calls=%take
  %f1 = (bf16[1,8,16]{2,1,0}, bf16[1,16,16]{2,1,0}) fusion(%w.1), kind=kCustom, calls=%start
  %f2 = bf16[1,16,16]{2,1,0} fusion(%w.1), kind=kCustom, calls=%done
  %wb = bf16[16,16]{1,0} bitcast(%f2)
  %y = bf16[4,16]{1,0:S(1)} convolution(%x, %wb), dim_labels=bf_io->bf
  %h = bf16[4,8]{1,0} slice(%y), slice={[0:4], [0:8]}
  %rs = bf16[2,8]{1,0} fusion(%h), kind=kCustom, calls=%all-reduce-scatter.1
  ROOT %out = (s32[], bf16[3,8,16]{2,1,0}, bf16[4,16]{1,0}) tuple(%i.1, %ws, %x)
}

%cond (t.1: (s32[], bf16[3,8,16], bf16[4,16])) -> pred[] {
  %t.1 = (s32[], bf16[3,8,16]{2,1,0}, bf16[4,16]{1,0}) parameter(0)
  %j = s32[] get-tuple-element(%t.1), index=0
  %three = s32[] constant(3)
  ROOT %less = pred[] compare(%j, %three), direction=LT
}

ENTRY %main (p: (s32[], bf16[3,8,16], bf16[4,16]), q: f32[32,64]) -> f32[64,64] {
  %p = (s32[], bf16[3,8,16]{2,1,0}, bf16[4,16]{1,0}) parameter(0)
  %q = f32[32,64]{1,0} parameter(1)
  %loop = (s32[], bf16[3,8,16]{2,1,0}, bf16[4,16]{1,0}) while(%p), condition=%cond, body=%body
  ROOT %dot = f32[64,64]{1,0} dot(%q, %q), lhs_contracting_dims={0}, rhs_contracting_dims={0}
}
"""


@pytest.mark.parametrize(
  "module", [costs, hlo, report, roofline, sizing, topology]
)
def test_docstring_examples(module):
  result = doctest.testmod(module)
  assert result.failed == 0
  assert result.attempted > 0


@pytest.fixture(scope="module")
def cost():
  return costs.of(hlo.parse(PROGRAM))


def test_collectives_of_a_loop_count_as_often_as_it_runs(cost):
  found = {(t.kind, t.group): (t.count, t.bytes) for t in cost.traffic}
  assert found == {
    # 8 x 16 bfloat16 of two devices, once a layer though written twice.
    ("all-gather", 2): (3, 3 * 2 * 8 * 16 * 2),
    # A sum of which each device keeps a part.
    ("reduce-scatter", 2): (3, 3 * 4 * 8 * 2),
  }


def test_products_of_a_loop_count_as_often_as_it_runs(cost):
  assert cost.flops == 3 * 2 * 4 * 16 * 16 + 2 * 64 * 64 * 32


def test_a_slice_of_stacked_layers_is_read_and_no_more(cost):
  layer = 8 * 16 * 2
  loop = sum(
    (
      2 * layer + 4,  # a slice read and written, and its index
      layer + (layer + 2 * layer),  # the gather begins
      layer + 2 * layer,  # and ends
      4 * 16 * 2 + 2 * layer,  # the product is kept in the chip
      2 * 4 * 8 * 2,  # the slice of it
      4 * 8 * 2 + 2 * 8 * 2,
    )
  )
  assert cost.hbm_bytes == 3 * loop + 2 * 32 * 64 * 4 + 64 * 64 * 4


def test_a_batch_of_products_is_no_window():
  attributes = (
    ", window={size=8 stride=7 pad=0_0 lhs_dilate=8}, dim_labels=0bf_0io->0bf"
  )
  left, right, out = (
    hlo.ArrayType("bf16", shape)
    for shape in ((8, 4, 32), (8, 32, 16), (8, 4, 16))
  )
  assert costs._products(attributes, left, right, out) == 8 * 4 * 32 * 16


def test_an_unrolled_loop_runs_half_as_often():
  text = PROGRAM.replace(
    "ROOT %out = (s32[], bf16[3,8,16]{2,1,0}, bf16[4,16]{1,0}) tuple(%i.1,",
    "%two = s32[] constant(2)\n  %next = s32[] add(%i.1, %two)\n  ROOT %out ="
    " (s32[], bf16[3,8,16]{2,1,0}, bf16[4,16]{1,0}) tuple(%next,",
  )
  module = hlo.parse(text)
  assert module.trips(module.entry.by_name["loop"]) == 2
  module = hlo.parse(PROGRAM)
  assert module.trips(module.entry.by_name["loop"]) == 3


@pytest.mark.parametrize(
  ("groups", "size"),
  [
    ("{{0,1,2,3},{4,5,6,7}}", 4),
    ("[16,8]<=[128]", 8),
    ("[2,2]<=[2,2]T(1,0)", 2),
    ("mesh['axis_0'=2,'axis_1'=4] {'axis_1'}", 4),
    ("mesh['axis_0'=2,'axis_1'=4] {'axis_0','axis_1'}", 8),
    ("mesh['a'=16] {'a':(2)4}", 4),
  ],
)
def test_who_takes_part_in_a_collective(groups, size):
  text = PROGRAM.replace("{{0,1},{2,3}}", groups)
  module = hlo.parse(text)
  one = module.computations["all-reduce-scatter.1"].by_name["r"]
  assert one.group_size == size


def test_the_network_is_a_roof_too(cost):
  machine = topology.named("v5e:2x2")
  found = roofline.estimate(cost, machine)
  sent = sum(t.sent for t in cost.traffic)
  assert math.isclose(found.network, sent / 90e9)
  assert math.isclose(found.compute, cost.flops / 197e12)
  assert found.least == max(found.compute, found.memory, found.network)


@pytest.mark.parametrize("name", ["v5e:16x15", "v9:2x2", "v4:4x4x6", ""])
def test_a_topology_that_does_not_exist_is_refused_with_the_list(name):
  with pytest.raises(UserError, match="does not exist; the nearest is") as e:
    topology.named(name)
  assert "v5e: 2x2, 2x4, 4x4" in str(e.value)
  assert "v4: 2x2x1" in str(e.value)


def steps_of(line, memory):
  """Steps whose temporaries are `line(rows)`, in bytes."""
  tried = []

  def compile_rows(rows):
    tried.append(rows)
    size = 100.0 + line(rows)
    if size > memory:
      return sizing.TooLarge(size, "", 0.0)
    return sizing.Step(100.0, line(rows), 0.0, "", 0.0)

  return compile_rows, tried


@pytest.mark.parametrize("first", [8, 16, 64, 1024])
def test_the_largest_batch_is_found_in_a_few_compilations(first):
  compile_rows, tried = steps_of(lambda rows: 50.0 + 2.0 * rows, 1000.0)
  found = sizing.largest_batch(
    compile_rows, first=(first, compile_rows(first)), unit=8, memory=1000.0,
    until=math.inf,
  )  # fmt: skip
  # 425 rows fit; 97 % of the memory are reckoned with.
  assert 400 <= found.rows <= 424
  assert len(tried) <= 5, tried


def test_no_batch_fits_where_the_state_does_not():
  compile_rows, tried = steps_of(lambda rows: 2000.0, 1000.0)
  found = sizing.largest_batch(
    compile_rows, first=(64, compile_rows(64)), unit=8, memory=1000.0,
    until=math.inf,
  )  # fmt: skip
  assert found.rows is None
  assert tried[-1] == 8


def test_a_refusal_of_the_compiler_is_read():
  found = sizing.too_large(
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in"
    " memory space hbm. Used 18.59G of 15.75G hbm. Exceeded hbm capacity by"
    " 2.84G."
  )
  assert found.bytes == 18.59 * 2**30
  assert found.reason == "Used 18.59G of 15.75G hbm"


def planned(*flags, timeout=580):
  env = {**os.environ, "JAX_PLATFORMS": "cpu"}
  env.pop("XLA_FLAGS", None)
  return subprocess.run(
    [
      sys.executable, "launch/run.py", "--gin_file=gin/flan_holdout_nli.gin",
      "--plan", *flags,
    ],
    cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout,
  )  # fmt: skip


def number(pattern, text):
  found = re.search(pattern, text)
  assert found, text
  return float(found[1].replace(",", ""))


@pytest.mark.slow
def test_a_plan_without_a_machine_says_so_and_plans_on_fake_devices():
  done = planned("--gin_file=gin/hardware/cpu_8.gin")
  assert done.returncode == 0, done.stderr
  assert "8 devices as data 2 x fsdp 2 x tensor 2" in done.stdout
  assert "names no machine" in done.stdout
  # 1.8M parameters in float32, over fsdp x tensor of 4.
  assert 1.7 < number(r"parameters +([\d.]+) MiB", done.stdout) < 1.8
  assert "all-gather" in done.stdout or "all-reduce" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None, reason="needs libtpu"
)
def test_a_plan_for_a_tpu_has_time_and_the_largest_batch():
  done = planned(
    "--gin_file=gin/hardware/v5e_4.gin", "--gin.BATCH_SIZE=8", timeout=1500
  )
  assert done.returncode == 0, done.stderr
  assert "machine:  v5e:2x2, 4 devices" in done.stdout
  assert "\nfits\n" in done.stdout
  assert number(r"largest batch that fits: ([\d,]+)", done.stdout) > 8
  assert "chip-hours" in done.stdout


def test_a_job_that_does_not_train_has_no_plan():
  done = subprocess.run(
    [
      sys.executable, "launch/run.py", "--gin_file=gin/contamination.gin",
      "--plan",
    ],
    cwd=ROOT, capture_output=True, text=True, timeout=300,
  )  # fmt: skip
  assert done.returncode == 2
  assert "--plan sizes up the training job" in done.stderr


def test_a_mesh_that_is_not_the_machine_s_is_refused_before_compiling():
  done = planned(
    "--gin_file=gin/hardware/v5e_256.gin", "--gin.MESH={'fsdp': 8}"
  )
  assert done.returncode == 2
  assert "(v5e:16x16) needs 8 devices, here are 256" in done.stderr


def test_a_plan_prints_what_it_found(capsys, cost):
  from flan_jax.training.progress import Display

  machine = topology.named("v5e:2x2")
  plan = report.Plan(
    topology=machine, mesh={"data": 1, "fsdp": 2, "tensor": 2},
    parameters=1_000_000, batch_size=16, microbatches=1, lengths=(256, 64),
    train_steps=1000, state={"parameters": 2**30, "optimiser": 2**20},
    step=sizing.Step(1.5 * 2**30, 2.0 * 2**30, 2**20, "", 1.0),
    model_flops=1e12, costs=cost, estimate=roofline.Estimate(0.1, 0.2, 0.3),
    largest=sizing.Largest(64, 80), notes=("one",), seconds=3.0,
  )  # fmt: skip
  assert plan.fits
  assert not dataclasses.replace(plan, step=sizing.TooLarge(None, "", 0.0)).fits
  assert math.isclose(plan.chip_hours(0.9), 1000 * 0.9 * 4 / 3600)
  report.show(Display(), plan)
  out = capsys.readouterr().out
  assert "step: 300 ms to 600 ms, bound by network" in out
  assert "64 rows (compiled); about 80" in out
