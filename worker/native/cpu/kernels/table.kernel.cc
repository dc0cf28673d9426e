#include "cpu/kernels.h"

namespace scmoe::SCMOE_ISA {

extern const OpEntry kOps[];
const OpEntry kOps[] = {
#define SCMOE_ENTRY(name) {#name, name},
    SCMOE_COMPUTE_OPS(SCMOE_ENTRY)
#undef SCMOE_ENTRY
};

}  // namespace scmoe::SCMOE_ISA
