// Checks of the CUDA tests beyond those of every backend.
#pragma once

#include "cuda_runtime.h"

namespace scmoe::test {

bool check_emulator();
bool check_tensor_cores();

}  // namespace scmoe::test
