#include "cpu/reference/reference.h"

#include "cpu/stream.h"

namespace scmoe {
namespace {

#define SCMOE_COUNT(name) +1
constexpr int kNumOps = 0 SCMOE_COMPUTE_OPS(SCMOE_COUNT);
#undef SCMOE_COUNT

template <class Real>
const Backend* backend(const char* name) {
  static const OpEntry ops[] = {
#define SCMOE_ENTRY(name) {#name, reference::name<Real>},
      SCMOE_COMPUTE_OPS(SCMOE_ENTRY)
#undef SCMOE_ENTRY
  };
  static const Backend table = {name, ops, kNumOps, false, cpu_stream_create, cpu_stream_destroy};
  return &table;
}

}  // namespace

const Backend* reference_backend() {
  return backend<float>("reference");
}
const Backend* reference_backend_f64() {
  return backend<double>("reference-f64");
}

}  // namespace scmoe
