// The CUDA backend: its table of ops. Each op puts kernels on its stream and returns; counts of rows that only the
// device knows are read there.
//
// device.cuh       element types, sums of warps and blocks, launches
// rows.cuh         where routed rows lie
// columns.cuh      sums over rows, column by column
// pointwise.cu     gelu, swiglu, add, gated_add, scale_rows
#include "ops.cuh"

namespace scmoe {
namespace {

#define SCMOE_ENTRY(name) {#name, cuda::name},
const OpEntry kOps[] = {SCMOE_ENTRY(gelu) SCMOE_ENTRY(gelu_backward) SCMOE_ENTRY(swiglu) SCMOE_ENTRY(swiglu_backward)
                            SCMOE_ENTRY(gated_add) SCMOE_ENTRY(scale_rows) SCMOE_ENTRY(add)};
#undef SCMOE_ENTRY

const Backend kBackend = {"cuda", kOps, sizeof kOps / sizeof *kOps, cuda::stream_create, cuda::stream_destroy};

}  // namespace

const Backend* cuda_backend() {
  return &kBackend;
}

}  // namespace scmoe

// The library's one entry point.
extern "C" __attribute__((visibility("default"))) const scmoe::Backend* scmoe_cuda_backend() {
  return scmoe::cuda_backend();
}
