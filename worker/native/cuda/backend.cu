// The CUDA backend: its table of ops. Each op puts kernels on its stream and returns. Counts of
// rows that only the device knows are read there.
//
// device.cuh           element types, sums of warps and blocks, launches rows.cuh             the
// places of routed rows columns.cuh          sums over rows, column by column blas.h
// matrix products by cuBLASLt tile.cuh             matrix products in fp32 multiply-adds matrix.cuh
// tensor cores, for bf16 tensor_tile.cuh      matrix products on tensor cores loss.cuh
// sums over tokens attention.cuh        the places of heads in qkv
//
// embedding.cu         token and position embeddings norm.cu              LayerNorm, RMSNorm
// linear.cu            linear layers attention.cu         causal attention attention_tensor.cu
// causal attention on tensor cores rope.cu              rotary positions pointwise.cu         gelu,
// swiglu, add, gated_add, scale_rows router.cu            scores, softmax, choice, places
// permute.cu           tokens to routed rows and back grouped.cu           the experts' linear
// layers gates.cu             coefficient gates of the shared expert loss.cu              cross
// entropy, balance and z losses update.cu            copies of parameters, zero, norms, AdamW
#include "ops.cuh"

namespace scmoe {
namespace {

#define SCMOE_ENTRY(name) {#name, cuda::name},
const OpEntry kOps[] = {SCMOE_COMPUTE_OPS(SCMOE_ENTRY)};
#undef SCMOE_ENTRY

const Backend kBackend = {"cuda", kOps, sizeof kOps / sizeof *kOps, true, cuda::stream_create, cuda::stream_destroy};

}  // namespace

const Backend* cuda_backend() {
  return &kBackend;
}

}  // namespace scmoe
