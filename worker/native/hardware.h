// Which executor: the one place that knows all kinds of hardware.
#pragma once

#include <string>

#include "device.h"
#include "device/device_executor.h"
#include "engine/engine.h"

namespace scmoe {

struct HardwareOptions {
  std::string backend = "cpu";  // or "cuda"
  DeviceOptions device;         // of a backend that has one
};

// Throws std::invalid_argument for a name it does not know; DEVICE_MISSING where the hardware, or what it needs, is not
// there.
Engine::MakeExecutor executor_for(const HardwareOptions& options);

// Something a GPU needs: where it was found and what it is, or in `missing` why not and what to do.
struct Part {
  std::string path, text, missing;
};

// What this process finds. Parts that could not be looked for, for want of an earlier one, are empty.
struct Inspection {
  std::string cpu;  // backend
  Part driver, library, nccl;
  std::vector<DeviceInfo> devices;
};
Inspection inspect_hardware();

}  // namespace scmoe
