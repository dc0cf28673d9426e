// Chooses the executor. This is the one place that knows all kinds of hardware.
#pragma once

#include <string>

#include "device.h"
#include "device/device_executor.h"
#include "device/nccl/collectives.h"
#include "engine/engine.h"

namespace scmoe {

struct HardwareOptions {
  std::string backend = "cpu";  // or "cuda"
  // Ignored by "cpu".
  DeviceOptions device{.collectives = {}, .make_collectives = make_nccl_collectives};
};

// Throws std::invalid_argument for an unknown backend, and DEVICE_MISSING if the hardware or
// software that it needs is missing.
Engine::MakeExecutor executor_for(const HardwareOptions& options);

// Software that a GPU needs: its path and a description, or in `missing` why it cannot be used and
// what to do.
struct Part {
  std::string path, text, missing;
};

// The hardware and software that this process finds. A part that needs a missing one is empty.
struct Inspection {
  std::string cpu;  // name of the backend
  Part driver, library, nccl;
  std::vector<DeviceInfo> devices;
};
Inspection inspect_hardware();

}  // namespace scmoe
