// Declares the launchers, one for each op. backend.cu makes the table of them.
#pragma once

#include "device.cuh"
#include "ops.generated.h"

namespace scmoe::cuda {

#define SCMOE_DECLARE(name) void name(const OpCall& call, Stream* stream);
SCMOE_COMPUTE_OPS(SCMOE_DECLARE)
#undef SCMOE_DECLARE

}  // namespace scmoe::cuda
