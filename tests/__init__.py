import contextlib

# torch for CUDA brings Triton, which has to be loaded before TensorFlow: the
# other way round their two copies of LLVM end the process.
with contextlib.suppress(ImportError):
  import triton  # noqa: F401
