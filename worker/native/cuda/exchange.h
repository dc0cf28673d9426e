#pragma once

#include "device.h"

namespace scmoe::cuda {

void move_padded(const PaddedRows& move, Stream* stream);

}  // namespace scmoe::cuda
