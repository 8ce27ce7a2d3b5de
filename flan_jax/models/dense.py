"""The dense layer: x @ kernel, however its kernel is stored or adapted.

The kernel is float32, or in fewer bits (`quantised.py`); beside it an adapter
(`lora.py`) may stand, which then says what becomes of the product. d is the
width of a layer's input, f of its output.
"""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flan_jax.models import placement, quantised

Dtype = jnp.dtype | str

fan_in = functools.partial(nn.initializers.variance_scaling, 1.0, "fan_in")

# The collection in which an adapter stands beside the kernel it adapts. To a
# model it comes as one more part of its parameters, of this name.
ADAPTERS = "adapters"


def variables(params: Mapping[str, Any]) -> dict[str, Any]:
  """The collections of flax: parameters, and adapters where there are some.

  >>> variables({"decoder": {}, "adapters": {"decoder": {}}})
  {'params': {'decoder': {}}, 'adapters': {'decoder': {}}}
  """
  if ADAPTERS not in params:
    return {"params": params}
  rest = {name: part for name, part in params.items() if name != ADAPTERS}
  return {"params": rest, ADAPTERS: params[ADAPTERS]}


@jax.custom_vjp
def project(
  x: Float[Array, "*b d"], kernel: Float[Array, "d f"]
) -> Float[Array, "*b f"]:
  """X @ kernel, with a gradient of the kernel that turns its smaller factor.

  Reverse mode turns the gradient of the output whatever its size. For the
  wide sides of T5 (F > D, V > D) XLA's CPU backend then writes it out column
  by column: a third of a step of `tests/benchmarks/step.py`.
  """
  return x @ kernel


def _project_fwd(x, kernel):
  return x @ kernel, (x, kernel)


def _project_bwd(residuals, gradient):
  x, kernel = residuals
  d_in, d_out = kernel.shape
  x_Nd = x.reshape(-1, d_in)
  gradient_Nf = gradient.reshape(-1, d_out)
  if d_in <= d_out:
    d_kernel = x_Nd.T @ gradient_Nf
  else:
    d_kernel = (gradient_Nf.T @ x_Nd).T
  return gradient @ kernel.T, d_kernel


project.defvjp(_project_fwd, _project_bwd)


class Dense(nn.Module):
  """x @ kernel; + bias where a model has one (T5 has none).

  `axes` are the kernel's logical axes, see `placement.gather`. An adapter is
  called with x, this product as a function, a key for its dropout or None, and
  the axes; what it returns is the layer's output.
  """

  features: int
  dtype: Dtype = jnp.float32
  kernel_init: nn.initializers.Initializer = fan_in("truncated_normal")
  use_bias: bool = False
  axes: tuple[str, ...] = ()

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b f"]:
    x = x.astype(self.dtype)
    stored = self.get_variable("params", "kernel")
    if isinstance(stored, Mapping):
      multiply = functools.partial(quantised.project, stored, axes=self.axes)
    else:
      shape = (x.shape[-1], self.features)
      kernel = self.param("kernel", self.kernel_init, shape)
      kernel = placement.gather(kernel.astype(self.dtype), self.axes)
      multiply = functools.partial(_project_by, kernel)
    product = multiply
    if self.use_bias:
      bias = self.param("bias", nn.initializers.zeros, (self.features,))
      bias = bias.astype(self.dtype)

      def product(x):
        return multiply(x) + bias

    adapter = self.get_variable(ADAPTERS, "adapter")
    if adapter is None:
      return product(x)
    rng = self.make_rng("dropout") if self.has_rng("dropout") else None
    return adapter(x, product, rng, self.axes)


def _project_by(kernel, x):
  return project(x, kernel)
