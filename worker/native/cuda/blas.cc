#include "blas.h"

#include <cstdlib>
#include <map>
#include <memory>
#include <optional>

#include "columns.cuh"
#include "stream.h"

namespace scmoe::cuda {
namespace {

constexpr size_t kWorkspaceBytes = size_t{32} << 20;  // cuBLAS recommends this for Hopper

struct Layout {
  cublasLtMatrixLayout_t layout = nullptr;
  Layout(cudaDataType_t type, int64_t rows, int64_t columns) {
    check(cublasLtMatrixLayoutCreate(&layout, type, static_cast<uint64_t>(rows), static_cast<uint64_t>(columns), rows),
          "cublasLtMatrixLayoutCreate");
  }
  ~Layout() { cublasLtMatrixLayoutDestroy(layout); }
  Layout(const Layout&) = delete;
  Layout& operator=(const Layout&) = delete;
};

cudaDataType_t type_of(DType type) {
  return type == DType::kBF16 ? CUDA_R_16BF : CUDA_R_32F;
}

// The descriptors and the algorithm of cuBLASLt for one shape.
struct Plan {
  explicit Plan(const BlasShape& s)
      : a(type_of(s.input), s.transpose_a ? s.k : s.m, s.transpose_a ? s.m : s.k),
        b(type_of(s.input), s.transpose_b ? s.n : s.k, s.transpose_b ? s.k : s.n),
        d(type_of(s.output), s.m, s.n) {
    check(cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
    const cublasOperation_t kept = CUBLAS_OP_N, turned = CUBLAS_OP_T;
    set(CUBLASLT_MATMUL_DESC_TRANSA, s.transpose_a ? turned : kept);
    set(CUBLASLT_MATMUL_DESC_TRANSB, s.transpose_b ? turned : kept);
    if (!s.bias && !s.bias_gradient) return;
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, s.bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_BGRADB);
    set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type_of(s.output));
  }
  ~Plan() { cublasLtMatmulDescDestroy(product); }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  template <class Value>
  void set(cublasLtMatmulDescAttributes_t attribute, const Value& value) {
    check(cublasLtMatmulDescSetAttribute(product, attribute, &value, sizeof value), "cublasLtMatmulDescSetAttribute");
  }

  cublasLtMatmulDesc_t product = nullptr;
  Layout a, b, d;
  std::optional<cublasLtMatmulAlgo_t> algorithm;  // empty if cuBLASLt has none
};

std::optional<cublasLtMatmulAlgo_t> choose(cublasLtHandle_t blas, const Plan& plan) {
  cublasLtMatmulPreference_t preference = nullptr;
  check(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
  check(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspaceBytes,
                                             sizeof kWorkspaceBytes),
        "cublasLtMatmulPreferenceSetAttribute");
  cublasLtMatmulHeuristicResult_t best{};
  int found = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      blas, plan.product, plan.a.layout, plan.b.layout, plan.d.layout, plan.d.layout, preference, 1, &best, &found);
  cublasLtMatmulPreferenceDestroy(preference);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED || (status == CUBLAS_STATUS_SUCCESS && found == 0)) return std::nullopt;
  check(status, "cublasLtMatmulAlgoGetHeuristic");
  return best.algo;
}

}  // namespace

// Plans by shape. Each is made at its first use, on the stream's thread.
struct BlasPlans {
  std::map<BlasShape, std::unique_ptr<Plan>> by_shape;
};

BlasPlans* blas_plans_create() {
  return new BlasPlans;
}
void blas_plans_destroy(BlasPlans* plans) {
  delete plans;
}

bool blas_sums_columns() {
  static const bool wanted = [] {
    const char* const text = std::getenv("SCMOE_CUDA_FUSE");
    return text == nullptr || text[0] != '0';
  }();
  return wanted;
}

bool blas_multiply(Stream* stream, const BlasShape& shape, const BlasOperands& x) {
  DeviceStream& d = device(stream);
  auto& plan = d.plans->by_shape[shape];
  const bool is_new = !plan;
  if (is_new) plan = std::make_unique<Plan>(shape);
  // The sums of columns are stored behind the workspace until they are added.
  const size_t sums_bytes = shape.bias_gradient ? static_cast<size_t>(shape.n) * sizeof(float) : 0;
  char* const workspace = static_cast<char*>(scratch(stream, kWorkspaceBytes + sums_bytes));
  auto* const sums = reinterpret_cast<float*>(workspace + kWorkspaceBytes);
  if (shape.bias) plan->set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, x.bias);
  if (shape.bias_gradient) plan->set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, sums);
  if (is_new) plan->algorithm = choose(d.blas, *plan);
  if (!plan->algorithm) return false;
  const float one = 1, added = shape.add ? 1 : 0;
  check(cublasLtMatmul(d.blas, plan->product, &one, x.a, plan->a.layout, x.b, plan->b.layout, &added,
                       shape.add ? x.c : x.d, plan->d.layout, x.d, plan->d.layout, &*plan->algorithm, workspace,
                       kWorkspaceBytes, d.stream),
        "cublasLtMatmul");
  if (shape.bias_gradient)
    launch(stream, grid_of(shape.n), add_partials, static_cast<const float*>(sums), int64_t{1}, shape.n,
           x.bias_gradient);
  return true;
}

}  // namespace scmoe::cuda
