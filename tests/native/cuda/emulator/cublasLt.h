// The entry points of cuBLASLt that worker/native/cuda uses, as plain loops.
#pragma once

#include "cuda_runtime.h"

enum cublasStatus_t { CUBLAS_STATUS_SUCCESS = 0, CUBLAS_STATUS_NOT_SUPPORTED = 15 };
struct cublasLtContext;
using cublasLtHandle_t = cublasLtContext*;

inline const char* cublasLtGetStatusString(cublasStatus_t) {
  return "not supported";
}
inline cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = nullptr;
  return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasLtDestroy(cublasLtHandle_t) {
  return CUBLAS_STATUS_SUCCESS;
}
