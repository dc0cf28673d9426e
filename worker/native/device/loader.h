// Opens the CUDA device library at run time, once everything that it needs has been found.
#pragma once

#include <string>

#include "device.h"

namespace scmoe {

// The NVIDIA driver, which is found without the device library. For `scmoe doctor` and for
// messages.
struct Driver {
  std::string path;
  int version = 0;  // newest CUDA that it runs, as 1000 * major + 10 * minor
  int devices = 0;
};

// Throws DEVICE_MISSING if there is no driver, the driver is too old, or this process sees no
// device.
Driver open_driver();

// The device library, after a check that device `index` can be used: libscmoe_cuda.so beside the
// engine, or the file that SCMOE_CUDA_LIBRARY names. Every call returns the same library. Throws
// DEVICE_MISSING, which says what was found, what is needed and what to do.
const Device& open_cuda(int index);

// "12.4"
std::string cuda_version_text(int version);

}  // namespace scmoe
