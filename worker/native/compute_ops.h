// The compute ops, once, in the order of worker/program/ops.ts: every table of a backend is made from this list.
#pragma once

#define SCMOE_COMPUTE_OPS(X) \
  X(embedding)               \
  X(embedding_backward)      \
  X(layernorm)               \
  X(layernorm_backward)      \
  X(rmsnorm)                 \
  X(rmsnorm_backward)        \
  X(linear)                  \
  X(linear_dgrad)            \
  X(linear_wgrad)            \
  X(attention)               \
  X(attention_backward)      \
  X(rope)                    \
  X(gelu)                    \
  X(gelu_backward)           \
  X(swiglu)                  \
  X(swiglu_backward)         \
  X(router)                  \
  X(router_backward)         \
  X(aux_loss)                \
  X(z_loss)                  \
  X(permute)                 \
  X(permute_backward)        \
  X(unpermute)               \
  X(unpermute_backward)      \
  X(grouped_linear)          \
  X(grouped_linear_dgrad)    \
  X(grouped_linear_wgrad)    \
  X(shared_gate)             \
  X(shared_gate_backward)    \
  X(gated_add)               \
  X(gated_add_backward)      \
  X(scale_rows)              \
  X(add)                     \
  X(cross_entropy)           \
  X(cast)                    \
  X(zero)                    \
  X(square_sum)              \
  X(global_norm)             \
  X(adamw)
