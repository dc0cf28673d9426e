// Programs on a device: the two queues are two streams, waits between them are events, and one thread issues
// everything.
#pragma once

#include <memory>

#include "device.h"
#include "device/collectives.h"
#include "executor/executor.h"

namespace scmoe {

struct DeviceOptions {
  int index = 0;  // among the devices this process sees
  // Whether a program whose shapes are static runs as one graph, from its second run on.
  bool graphs = true;
  CollectiveOptions collectives;
};

// Throws DEVICE_FAILED where the device does not answer.
std::unique_ptr<Executor> make_device_executor(const EngineOptions& options, const Device& device,
                                               const DeviceOptions& device_options, Communicator& control,
                                               Interrupt& interrupt);

}  // namespace scmoe
