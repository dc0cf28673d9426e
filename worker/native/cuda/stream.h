// A CUDA stream as launchers see it. An op puts all its work on it, in order. No function here
// waits for the device, except when an op needs more scratch than any op before.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <vector>

#include "backend.h"

namespace scmoe::cuda {

struct BlasPlans;
BlasPlans* blas_plans_create();
void blas_plans_destroy(BlasPlans* plans);

// The backend's own type behind Stream in backend.h.
struct DeviceStream {
  cudaStream_t stream = nullptr;
  cublasLtHandle_t blas = nullptr;
  BlasPlans* plans = nullptr;  // blas.cc
  void* scratch = nullptr;
  size_t scratch_bytes = 0;
  std::vector<void*> outgrown{};  // scratch that recorded graphs may still use
};

inline DeviceStream& device(Stream* stream) {
  return *reinterpret_cast<DeviceStream*>(stream);
}

Stream* stream_create(int num_threads);
void stream_destroy(Stream* stream);

// Throws std::runtime_error that names the failed call.
void check(cudaError_t status, const char* what);
void check(cublasStatus_t status, const char* what);

// Memory of one op, 256-byte aligned and with undefined contents. Every call returns the same
// memory, so an op asks only once. It grows at the first use and never in steady state.
void* scratch(Stream* stream, size_t bytes);

template <class T>
T* scratch_of(Stream* stream, int64_t elements) {
  return static_cast<T*>(scratch(stream, static_cast<size_t>(elements) * sizeof(T)));
}

}  // namespace scmoe::cuda
