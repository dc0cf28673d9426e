// Which executor: the one place that knows all kinds of hardware.
#pragma once

#include <string>

#include "device/streams.h"
#include "engine.h"

namespace scmoe {

struct HardwareOptions {
  std::string backend = "cpu";  // or "cuda"
  DeviceOptions device;         // of a backend that has one
};

// Throws std::invalid_argument for a name it does not know; DEVICE_MISSING where the hardware, or what it needs, is not
// there.
Engine::MakeExecutor executor_for(const HardwareOptions& options);

}  // namespace scmoe
