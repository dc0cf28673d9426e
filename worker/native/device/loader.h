// The CUDA device library, opened at run time once everything it needs has been found.
#pragma once

#include <string>

#include "device.h"

namespace scmoe {

// What there is of a GPU's software, found without the device library; for `scmoe doctor` and for messages.
struct Driver {
  std::string path;
  int version = 0;  // of CUDA that it can run, 1000 * major + 10 * minor
  int devices = 0;
};

// Throws DEVICE_MISSING: no driver, one too old, or no device that this process may see.
Driver open_driver();

// libscmoe_cuda.so beside the engine, or what SCMOE_CUDA_LIBRARY names, for device `index`; the same one at every call.
// Throws DEVICE_MISSING: what was found, what is needed and what to do.
const Device& open_cuda(int index);

// "12.4"
std::string cuda_version_text(int version);

}  // namespace scmoe
