#include "stream.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace scmoe::cuda {

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

void check(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw std::runtime_error(std::string(what) + ": " + cublasLtGetStatusString(status));
}

Stream* stream_create(int) {
  auto* created = new DeviceStream;
  check(cudaStreamCreateWithFlags(&created->stream, cudaStreamNonBlocking), "cudaStreamCreate");
  check(cublasLtCreate(&created->blas), "cublasLtCreate");
  created->plans = blas_plans_create();
  return reinterpret_cast<Stream*>(created);
}

void stream_destroy(Stream* stream) {
  DeviceStream& d = device(stream);
  cudaStreamSynchronize(d.stream);
  for (void* memory : d.outgrown) cudaFree(memory);
  cudaFree(d.scratch);
  blas_plans_destroy(d.plans);
  cublasLtDestroy(d.blas);
  cudaStreamDestroy(d.stream);
  delete &d;
}

void* scratch(Stream* stream, size_t bytes) {
  DeviceStream& d = device(stream);
  if (d.scratch_bytes < bytes) {
    if (d.scratch) d.outgrown.push_back(d.scratch);
    d.scratch = nullptr, d.scratch_bytes = 0;
    check(cudaMalloc(&d.scratch, bytes), "cudaMalloc of scratch");
    d.scratch_bytes = bytes;
  }
  return d.scratch;
}

}  // namespace scmoe::cuda
