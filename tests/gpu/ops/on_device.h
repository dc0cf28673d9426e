// A backend for buffers in this process's memory that runs the ops of a device library: a call
// copies the buffers to the device, runs there and copies the outputs back.
#pragma once

#include "device.h"

namespace scmoe::test {

// A call throws std::runtime_error, with the op and the place, if the op changes a byte outside of
// its outputs. Every buffer is surrounded by bytes that show this. A process can use one device
// only, which must have been chosen before.
const Backend& on_device(const Device& device);

}  // namespace scmoe::test
