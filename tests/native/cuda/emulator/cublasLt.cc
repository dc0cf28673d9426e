#include "cublasLt.h"

#include <cstring>

namespace {

float element(const void* data, cudaDataType_t type, int64_t i) {
  return type == CUDA_R_32F ? static_cast<const float*>(data)[i]
                            : __bfloat162float(static_cast<const __nv_bfloat16*>(data)[i]);
}

// The index of [row, column] in a matrix or in its transpose.
float element(const void* data, const EmulatedLayout& layout, cublasOperation_t op, int64_t row, int64_t column) {
  if (op == CUBLAS_OP_T) std::swap(row, column);
  return element(data, layout.type, row + column * layout.leading);
}

// Columns are summed in the product only if there are many, so that the fallback for the others
// runs too.
bool sums(const EmulatedProduct& product, const EmulatedLayout& d) {
  return product.epilogue != CUBLASLT_EPILOGUE_BGRADB || d.columns >= 8;
}

// Refuses rows that are not multiples of 16 bytes, as the real library refuses some shapes, so that
// the fallback runs too.
bool aligned(const EmulatedLayout& layout) {
  return layout.type == CUDA_R_32F || layout.leading % 8 == 0;
}

}  // namespace

const char* cublasLtGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_SUCCESS ? "success" : "not supported";
}
cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = nullptr;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t) {
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType_t type, uint64_t rows,
                                          uint64_t columns, int64_t leading) {
  *layout = new EmulatedLayout{type, rows, columns, leading};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete layout;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* product, cublasComputeType_t, cudaDataType_t) {
  *product = new EmulatedProduct;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
  void* const target = attribute == CUBLASLT_MATMUL_DESC_TRANSA         ? static_cast<void*>(&product->a)
                       : attribute == CUBLASLT_MATMUL_DESC_TRANSB       ? static_cast<void*>(&product->b)
                       : attribute == CUBLASLT_MATMUL_DESC_EPILOGUE     ? static_cast<void*>(&product->epilogue)
                       : attribute == CUBLASLT_MATMUL_DESC_BIAS_POINTER ? static_cast<void*>(&product->bias)
                                                                        : static_cast<void*>(&product->bias_type);
  std::memcpy(target, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t product) {
  delete product;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  *preference = nullptr;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t,
                                                    const void*, size_t) {
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t) {
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t product, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                              cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t, int,
                                              cublasLtMatmulHeuristicResult_t*, int* found) {
  *found = sums(*product, *d) && aligned(*a) && aligned(*b) && aligned(*c) && aligned(*d);
  return *found ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t product, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t*, void* workspace,
                              size_t workspace_bytes, cudaStream_t) {
  std::memset(workspace, 0xff, workspace_bytes < 4096 ? workspace_bytes : 4096);
  const int64_t m = static_cast<int64_t>(d_layout->rows), n = static_cast<int64_t>(d_layout->columns);
  const int64_t depth = static_cast<int64_t>(product->a == CUBLAS_OP_T ? a_layout->rows : a_layout->columns);
  const float scale = *static_cast<const float*>(alpha), kept = *static_cast<const float*>(beta);
  for (int64_t column = 0; column < n; column++) {
    if (product->epilogue == CUBLASLT_EPILOGUE_BGRADB) {
      float sum = 0;
      for (int64_t k = 0; k < depth; k++) sum += element(b, *b_layout, product->b, k, column);
      static_cast<float*>(product->bias)[column] = sum;
    }
    for (int64_t row = 0; row < m; row++) {
      float sum = 0;
      for (int64_t k = 0; k < depth; k++)
        sum += element(a, *a_layout, product->a, row, k) * element(b, *b_layout, product->b, k, column);
      sum *= scale;
      if (product->epilogue == CUBLASLT_EPILOGUE_BIAS) sum += element(product->bias, product->bias_type, row);
      if (kept != 0) sum += kept * element(c, *c_layout, CUBLAS_OP_N, row, column);
      const int64_t at = row + column * d_layout->leading;
      if (d_layout->type == CUDA_R_32F) {
        static_cast<float*>(d)[at] = sum;
      } else {
        static_cast<__nv_bfloat16*>(d)[at] = __float2bfloat16(sum);
      }
    }
  }
  return CUBLAS_STATUS_SUCCESS;
}
