// Chooses the kernels: those for the widest instruction set that this machine and its operating
// system support.
#include "backend.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

#include "cpu/stream.h"
#include "ops.generated.h"

namespace scmoe {

namespace baseline {
extern const OpEntry kOps[];
}
namespace avx2 {
extern const OpEntry kOps[];
}
namespace avx512 {
extern const OpEntry kOps[];
}

namespace {

#define SCMOE_COUNT(name) +1
constexpr int kNumOps = 0 SCMOE_COMPUTE_OPS(SCMOE_COUNT);
#undef SCMOE_COUNT

// GCC's check of a feature also checks that the operating system saves its registers.
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

struct Isa {
  const char* name;
  bool (*supported)();
  Backend backend;
};

// The widest instruction set comes first.
const Isa kIsas[] = {
    {"avx512", has_avx512, {"cpu-avx512", avx512::kOps, kNumOps, false, cpu_stream_create, cpu_stream_destroy}},
    {"avx2", has_avx2, {"cpu-avx2", avx2::kOps, kNumOps, false, cpu_stream_create, cpu_stream_destroy}},
    {"baseline",
     [] { return true; },
     {"cpu-baseline", baseline::kOps, kNumOps, false, cpu_stream_create, cpu_stream_destroy}},
};

}  // namespace

const Backend* cpu_backend() {
  const char* wanted = std::getenv("SCMOE_CPU_ISA");
  const std::string name = wanted ? wanted : "";
  for (const Isa& isa : kIsas) {
    if (name.empty() ? isa.supported() : name == isa.name) {
      if (isa.supported()) return &isa.backend;
      throw std::runtime_error("SCMOE_CPU_ISA is " + name +
                               ", which this machine cannot run: unset it to use the best it can");
    }
  }
  throw std::runtime_error("SCMOE_CPU_ISA is " + name + ": use avx512, avx2 or baseline, or unset it");
}

}  // namespace scmoe
